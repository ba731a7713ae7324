//! How a type is decoded, and which ZQL type it has.

use kelvin_protocol::ValueType;
use kelvin_storage::Column;

/// First oid of what users create.
const FIRST_USER_OID: u32 = 16384;

/// The ways a scalar is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// Text whose binary form is its text form.
    Text,
    /// Anything taken as PostgreSQL prints it.
    Output,
    Uuid,
    Json,
    Jsonb,
    Date,
    Timestamp,
    Timestamptz,
    Time,
    Timetz,
    Inet,
    Macaddr,
    PgLsn,
}

impl Scalar {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 20] = [
        Self::Bool,
        Self::Int2,
        Self::Int4,
        Self::Int8,
        Self::Float4,
        Self::Float8,
        Self::Numeric,
        Self::Text,
        Self::Output,
        Self::Uuid,
        Self::Json,
        Self::Jsonb,
        Self::Date,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Time,
        Self::Timetz,
        Self::Inet,
        Self::Macaddr,
        Self::PgLsn,
    ];

    /// The scalar for a type name. `oid` is that of the column's type: what users create is
    /// printed.
    pub(crate) fn of(name: &str, oid: u32) -> Self {
        if oid >= FIRST_USER_OID {
            return Self::Output;
        }
        match name {
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "numeric" => Self::Numeric,
            "text" | "varchar" | "bpchar" => Self::Text,
            "uuid" => Self::Uuid,
            "json" => Self::Json,
            "jsonb" => Self::Jsonb,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            "timestamptz" => Self::Timestamptz,
            "time" => Self::Time,
            "timetz" => Self::Timetz,
            "inet" | "cidr" => Self::Inet,
            "macaddr" | "macaddr8" => Self::Macaddr,
            "pg_lsn" => Self::PgLsn,
            _ => Self::Output,
        }
    }

    pub(super) fn knows_binary(self) -> bool {
        self != Self::Output
    }

    /// The ZQL type, where values of the type are held.
    fn value_type(self) -> Option<ValueType> {
        Some(match self {
            Self::Bool => ValueType::Boolean,
            Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Numeric
            | Self::Date
            | Self::Timestamp
            | Self::Timestamptz
            | Self::Time
            | Self::Timetz => ValueType::Number,
            Self::Text | Self::Uuid | Self::Inet | Self::Macaddr | Self::PgLsn => ValueType::String,
            Self::Json | Self::Jsonb => ValueType::Json,
            Self::Output => return None,
        })
    }
}

/// What `pg_type` says about a column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementKind {
    /// A true array.
    Array,
    /// An enum.
    Enum,
    /// A base type.
    Base,
    /// A domain, composite, range and so on.
    Other,
}

/// Types of extensions that are text for ZQL.
fn is_text_like(name: &str) -> bool {
    matches!(
        name,
        "ean13" | "isbn" | "isbn13" | "ismn" | "ismn13" | "issn" | "issn13" | "upc"
    )
}

/// Whether a column that is held is one of an enum.
pub(super) fn is_enum(column: &Column) -> bool {
    let name = column.upstream_type.as_str();
    column.type_oid >= FIRST_USER_OID
        && column.value_type == ValueType::String
        && !is_text_like(name)
}

impl ElementKind {
    /// The ZQL type of a column; `None` where it cannot be held.
    pub(crate) fn value_type(self, type_name: &str, oid: u32) -> Option<ValueType> {
        match self {
            Self::Array => Some(ValueType::Json),
            Self::Enum => Some(ValueType::String),
            Self::Base if is_text_like(type_name) => Some(ValueType::String),
            Self::Base => Scalar::of(type_name, oid).value_type(),
            Self::Other => None,
        }
    }
}
