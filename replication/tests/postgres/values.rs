//! Every supported type, by every way a value can come.

use kelvin_protocol::{Value, ValueType};
use kelvin_replication::Options;

use crate::cluster::Cluster;
use crate::following::{Following, options, prepared, rows, wait};
use crate::modes::begun_with;

/// Each type with values of it. The first value of a type is checked against [`expected`] too.
const TYPES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("int2", &["-32768", "32767"]),
    ("int4", &["-2147483648", "7"]),
    (
        "int8",
        &[
            "9007199254740991",
            "9007199254740992",
            "-9223372036854775808",
            "0",
        ],
    ),
    (
        "float4",
        &[
            "'0.1'",
            "'-1e-40'",
            "'3.4e38'",
            "'NaN'",
            "'-Infinity'",
            "'16777217'",
            "'-0'",
        ],
    ),
    (
        "float8",
        &[
            "'0.1'",
            "'1e300'",
            "'5e-324'",
            "'NaN'",
            "'Infinity'",
            "'-0'",
        ],
    ),
    (
        "numeric",
        &[
            "'12.34'",
            "'1e20'",
            "'-0.000000000000000000000123'",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'123456789012345678901234567890.5'",
            "'0'",
            "'10000'",
            "'0.0001'",
            "'9007199254740993'",
        ],
    ),
    (
        "text",
        &[
            "'a''b\\\t\n\r'",
            "''",
            "'\u{1F600}'",
            "'NULL'",
            "'\\N'",
            "E'\\x08\\x0b\\x0c'",
        ],
    ),
    ("varchar(9)", &["'x y'"]),
    ("char(4)", &["'ab'"]),
    ("uuid", &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"]),
    ("mood", &["'so so'", "'\"quoted\"'"]),
    (
        "json",
        &[
            "'{\"a\": [1, 2.0,\n null]}'",
            "'null'",
            "'12345678901234567890'",
            "'\"x\"'",
        ],
    ),
    ("jsonb", &["'{\"b\":1,\"a\":[true]}'", "'null'", "'1e3'"]),
    (
        "date",
        &[
            "'2000-02-29'",
            "'0044-03-15 BC'",
            "'infinity'",
            "'-infinity'",
            "'5874897-12-31'",
        ],
    ),
    (
        "timestamp",
        &[
            "'2019-01-12 00:30:35.381101'",
            "'1969-12-31 23:59:59.999999'",
            "'-infinity'",
            "'infinity'",
            "'294276-12-31 23:59:59.999999'",
            "'4713-01-01 00:00:00 BC'",
            "'1883-11-18 12:00:00.000001'",
            "'2300-01-01 00:00:00.123457'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'2019-01-12 00:30:35.381101+05:30'",
            "'1900-01-01 00:00:00+00:19:32'",
            "'infinity'",
        ],
    ),
    ("time", &["'23:59:59.999999'", "'24:00:00'", "'00:00:00'"]),
    (
        "timetz",
        &["'01:00:00.5+02'", "'24:00:00+00'", "'23:00:00-08:30'"],
    ),
    (
        "inet",
        &[
            "'192.168.1.1'",
            "'10.0.0.0/8'",
            "'::1'",
            "'::'",
            "'::ffff:1.2.3.4'",
            "'::1.2.3.4'",
            "'2001:db8::1:0:0:1'",
            "'fe80::/10'",
            "'1:0:0:2:0:0:0:3'",
            "'::2:0'",
            "'1::'",
        ],
    ),
    (
        "cidr",
        &["'10.1.0.0/16'", "'10.1.2.3'", "'2001:db8::/32'", "'::/0'"],
    ),
    ("macaddr", &["'08:00:2B:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("pg_lsn", &["'16/B374D848'", "'0/0'"]),
    ("isbn", &["'978-0-393-04002-9'"]),
    ("bool[]", &["'{t,NULL,f}'"]),
    ("int4[]", &["'{{1,2},{3,NULL}}'", "'{}'", "'[5:6]={1,2}'"]),
    ("int8[]", &["'{9223372036854775807,NULL,1}'"]),
    ("float4[]", &["'{0.1,NaN,NULL}'"]),
    ("numeric[]", &["'{1e20,0.5,Infinity}'"]),
    (
        "text[]",
        &[
            "ARRAY['a','NULL',NULL,'','q\"\\,{}','\u{1F600} \n']",
            "'{}'",
        ],
    ),
    ("uuid[]", &["'{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11,NULL}'"]),
    ("mood[]", &["'{so so,NULL,\"\\\"quoted\\\"\"}'"]),
    ("json[]", &["ARRAY['{\"a\": 1}'::json, NULL, '2'::json]"]),
    (
        "jsonb[]",
        &["ARRAY['{\"a\":1}'::jsonb, NULL, '\"s\"'::jsonb]"],
    ),
    ("date[]", &["'{2000-02-29,infinity,NULL}'"]),
    ("timestamp[]", &["'{1969-12-31 23:59:59.999999,NULL}'"]),
    (
        "timestamptz[]",
        &["'{2019-01-12 00:30:35.381101+05:30,NULL}'"],
    ),
    ("time[]", &["'{24:00:00,NULL}'"]),
    ("inet[]", &["'{192.168.1.1,10.0.0.0/8,NULL}'"]),
    ("interval[]", &["'{1 day 02:03:04,NULL}'"]),
    ("bytea[]", &["ARRAY['\\x00ff'::bytea, NULL]"]),
    ("box[]", &["'{(1,2),(0,0);(3,4),(1,1)}'"]),
    ("positive[]", &["'{1,NULL}'"]),
];

/// What clients see of the first value of some types.
const EXPECTED: &[(&str, &str)] = &[
    ("bool", "Bool(true)"),
    ("int8", "Number(9007199254740991.0)"),
    ("float4", "Number(0.1)"),
    ("numeric", "Number(12.34)"),
    ("char(4)", "String(\"ab  \")"),
    ("uuid", "String(\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\")"),
    ("mood", "String(\"so so\")"),
    ("json", "Json(\"{\\\"a\\\": [1, 2.0,\\n null]}\")"),
    ("jsonb", "Json(\"{\\\"a\\\": [true], \\\"b\\\": 1}\")"),
    ("date", "Number(951782400000.0)"),
    ("timestamp", "Number(1547253035381.101)"),
    ("timestamptz", "Number(1547233235381.101)"),
    ("time", "Number(86399999.0)"),
    ("timetz", "Number(82800500.0)"),
    ("inet", "String(\"192.168.1.1\")"),
    ("cidr", "String(\"10.1.0.0/16\")"),
    ("bool[]", "Json(\"[true,null,false]\")"),
    ("int4[]", "Json(\"[[1,2],[3,null]]\")"),
    ("int8[]", "Json(\"[9223372036854775807,null,1]\")"),
    ("float4[]", "Json(\"[0.1,null,null]\")"),
    ("json[]", "Json(\"[{\\\"a\\\": 1},null,2]\")"),
    ("timestamp[]", "Json(\"[-0.001,null]\")"),
];

/// Whether a column of the type keeps the stream in text.
fn is_printed(name: &str) -> bool {
    let printed = ["mood[]", "interval[]", "bytea[]", "box[]", "positive[]"];
    printed.contains(&name)
}

/// Every type, or those whose values can come in binary form.
fn types(printed: bool) -> Vec<(&'static str, &'static [&'static str])> {
    let types = TYPES.iter().copied();
    types
        .filter(|(name, _)| printed || !is_printed(name))
        .collect()
}

/// A table with a column for each type, and a row for each value.
fn schema(types: &[(&str, &[&str])]) -> String {
    let columns: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(at, (name, _))| format!("c{at} {name}"))
        .collect();
    let mut sql = format!(
        "CREATE EXTENSION isn;
         CREATE TYPE mood AS ENUM ('so so', '\"quoted\"');
         CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         ALTER ROLE postgres SET DateStyle = 'German';
         ALTER ROLE postgres SET TimeZone = 'America/New_York';
         ALTER ROLE postgres SET IntervalStyle = 'iso_8601';
         ALTER ROLE postgres SET extra_float_digits = -5;
         CREATE TABLE v (id int PRIMARY KEY, {});",
        columns.join(", ")
    );
    let longest = types.iter().map(|(_, values)| values.len()).max().unwrap();
    for id in 0..=longest {
        let values: Vec<_> = types
            .iter()
            .map(|(_, values)| values.get(id).copied().unwrap_or("NULL"))
            .collect();
        sql.push_str(&format!(
            "INSERT INTO v VALUES ({id}, {});",
            values.join(", ")
        ));
    }
    sql
}

/// Numbers by their bits, so that NaN equals itself and nothing else.
fn exact(row: &[Value]) -> Vec<String> {
    row.iter()
        .skip(1)
        .map(|value| format!("{value:?}"))
        .collect()
}

/// Copies, then streams the same values as new rows, as a key that changes, and as old rows whose
/// other columns change.
async fn assert_all_ways_alike(printed: bool, text_stream: bool, stream: &str) {
    let cluster = Cluster::start();
    let types = types(printed);
    cluster.sql(&schema(&types)).await;
    let (binary, _directory) = options(&cluster);
    let binary = Options {
        text_stream,
        ..binary
    };
    let following = Following::start(&binary).await;
    begun_with(&cluster, stream).await;
    let copied = following.rows("v");
    assert!(copied.len() > 5);
    cluster
        .sql(
            "CREATE TEMP TABLE again AS TABLE v;
             UPDATE again SET id = id + 1000;
             INSERT INTO v TABLE again;
             UPDATE v SET id = id + 1000 WHERE id >= 1000;
             ALTER TABLE v REPLICA IDENTITY FULL;
             UPDATE v SET id = id + 1000 WHERE id >= 2000;
             INSERT INTO v (id) VALUES (9999); DELETE FROM v WHERE id = 9999",
        )
        .await;
    wait(|| {
        let rows = following.rows("v");
        rows.len() == 2 * copied.len() && rows.last().is_some_and(|row| row[0] > 3000.0.into())
    })
    .await;
    let both = following.rows("v");
    assert_eq!(both.len(), 2 * copied.len());
    let streamed = &both[copied.len()..];
    following.stop().await;

    let (text, _directory) = options(&cluster);
    let text = Options {
        text_copy: true,
        app_id: "texty".into(),
        ..text
    };
    let text = rows(&prepared(&text).await.replica, "v");

    for (at, row) in copied.iter().enumerate() {
        assert_eq!(exact(row), exact(&streamed[at]), "streamed row {at}");
        assert_eq!(exact(row), exact(&text[at]), "text row {at}");
    }
    for (name, value) in EXPECTED {
        let column = types.iter().position(|(there, _)| there == name).unwrap();
        assert_eq!(format!("{:?}", copied[0][column + 1]), *value, "{name}");
    }
}

#[tokio::test]
async fn every_type_has_the_same_value_by_binary_copy_text_copy_and_stream() {
    // Some of them keep the stream in text.
    assert_all_ways_alike(true, false, "binary 'false'").await;
}

#[tokio::test]
async fn every_type_with_a_binary_form_has_the_same_value_by_a_stream_in_that_form() {
    assert_all_ways_alike(false, false, "binary 'true'").await;
    assert_all_ways_alike(false, true, "binary 'false'").await;
}

#[tokio::test]
async fn types_are_mapped_as_zero_maps_them() {
    let cluster = Cluster::start();
    cluster.sql(&schema(TYPES)).await;
    let (options, _directory) = options(&cluster);
    let replica = prepared(&options).await.replica;
    let catalog = replica.catalog();
    let table = catalog.table("v").unwrap();
    assert_eq!(table.unsynced_columns, []);
    for (column, (name, _)) in table.columns[1..].iter().zip(TYPES) {
        let expected = match *name {
            "bool" => ValueType::Boolean,
            "json" | "jsonb" => ValueType::Json,
            name if name.ends_with(']') => ValueType::Json,
            "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "date" | "timestamp"
            | "timestamptz" | "time" | "timetz" => ValueType::Number,
            _ => ValueType::String,
        };
        assert_eq!(column.value_type, expected, "{name}");
    }
}

#[tokio::test]
async fn unsupported_columns_are_left_out_and_the_rest_is_served() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE EXTENSION citext; CREATE DOMAIN positive AS int;
             CREATE TYPE pair AS (a int, b int);
             CREATE TABLE t (id int PRIMARY KEY, p point, d positive, c citext, b bytea,
               i interval, m money, x xml, r int4range, o pair, \"odd name\" text, bits bit(3),
               n name, kept text, doubled int GENERATED ALWAYS AS (id * 2) STORED);
             INSERT INTO t (id, p, kept, o) VALUES (1, '(1,2)', 'yes', '(1,2)')",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    cluster
        .sql("INSERT INTO t (id, p, kept, i) VALUES (2, '(1,2)', 'too', '1 day')")
        .await;
    let row = |id: f64, kept: &str| vec![Value::from(id), Value::from(kept)];
    following
        .until_rows("t", &[row(1.0, "yes"), row(2.0, "too")])
        .await;
    let catalog = following.replica.catalog();
    assert_eq!(catalog.table("t").unwrap().unsynced_columns.len(), 12);
    following.stop().await;
}
