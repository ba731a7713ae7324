//! Random types, and SQL expressions of random values of them.

use fastrand::Rng;

/// Types as `format_type` says them. Some cannot be synced.
pub(super) const TYPES: &[&str] = &[
    "integer",
    "bigint",
    "smallint",
    "text",
    "character varying(40)",
    "numeric",
    "numeric(12,4)",
    "boolean",
    "double precision",
    "real",
    "jsonb",
    "json",
    "uuid",
    "timestamp with time zone",
    "timestamp(3) without time zone",
    "date",
    "time without time zone",
    "bytea",
    "text[]",
    "integer[]",
    "numeric[]",
    "mood",
    "mood[]",
    "positive",
    "character(4)",
    "inet",
    "point",
];

/// Types of keys.
pub(super) const KEYS: &[&str] = &[
    "integer",
    "bigint",
    "text",
    "uuid",
    "date",
    "mood",
    "numeric(12,4)",
];

/// An expression for a value of a type, now and then null.
pub(super) fn value(rng: &mut Rng, of: &str, nullable: bool) -> String {
    if nullable && rng.u8(..8) == 0 {
        return "NULL".into();
    }
    if let Some(element) = of.strip_suffix("[]") {
        let elements: Vec<_> = (0..rng.usize(..4))
            .map(|_| value(rng, element, true))
            .collect();
        return format!("ARRAY[{}]::{of}", elements.join(", "));
    }
    let n = rng.u32(..1000);
    let text = match of {
        "boolean" => n.is_multiple_of(2).to_string(),
        "double precision" | "real" => format!("{}.{}", n, rng.u8(..100)),
        _ if of.starts_with("numeric") => format!("-{n}.{:03}", rng.u16(..1000)),
        "jsonb" | "json" => format!(r#"{{"a": [{n}, null], "b": {{"c": "x{n}"}}}}"#),
        "uuid" => return format!("md5('{n}')::uuid"),
        "date" => return format!("(date '1999-12-01' + {n})"),
        "bytea" => format!("\\x{n:08x}"),
        "mood" => return format!("(enum_range(NULL::mood))[1 + {n} % 3]"),
        "point" => format!("({n},1)"),
        "inet" => format!("10.0.{}.{}", n % 256, rng.u8(..)),
        "character(4)" => format!("{:x}", n % 256),
        _ if of.starts_with("timestamp") => {
            return format!("(timestamp '2001-02-03 04:05:06.789123' + interval '{n} h')::{of}");
        }
        "time without time zone" => format!("{:02}:{:02}:01.5", n % 24, n % 60),
        // Larger than a page takes, so that it may be left out of changes.
        "text" if rng.u8(..6) == 0 => {
            return format!(
                "(SELECT string_agg(md5(g::text || '{n}'), '') FROM generate_series(1, 150) g)"
            );
        }
        _ => n.to_string(),
    };
    format!("'{text}'::{of}")
}
