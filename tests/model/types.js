// Every type that can be synced, with values and what a client must see of them. The same values
// go through the initial copy, through inserts and through updates: all three must agree.

import {boolean, createSchema, json, number, string, table} from '@rocicorp/zero';

const KINDS = {number, string, boolean, json};

/**
 * Columns: name, PostgreSQL type, kind at the client, then pairs of an SQL literal and the value
 * the client sees. A third element `peer` marks what the peer is known to get wrong or to die of.
 * @type {[string, string, keyof KINDS, [string, unknown, 'peer'?][]][]}
 */
export const COLUMNS = [
  [
    'a_bool',
    'bool',
    'boolean',
    [
      ['true', true],
      ['false', false],
    ],
  ],
  [
    'a_int2',
    'int2',
    'number',
    [
      ['-32768', -32768],
      ['32767', 32767],
    ],
  ],
  [
    'a_int4',
    'int4',
    'number',
    [
      ['-2147483648', -2147483648],
      ['0', 0],
    ],
  ],
  [
    'a_int8',
    'int8',
    'number',
    [
      ['9007199254740991', 9007199254740991],
      ['-9007199254740991', -9007199254740991],
    ],
  ],
  [
    'a_float4',
    'float4',
    'number',
    [
      ['1.5', 1.5],
      ['0.1', 0.1, 'peer'],
      ['-3.4e38', -3.4e38, 'peer'],
      ["'NaN'", null, 'peer'],
    ],
  ],
  [
    'a_float8',
    'float8',
    'number',
    [
      ['0.1', 0.1],
      ['-1.7976931348623157e308', -1.7976931348623157e308],
      ['5e-324', 5e-324],
      ["'NaN'", null, 'peer'],
      ["'-Infinity'", null, 'peer'],
      ['1e21', 1e21],
    ],
  ],
  [
    'a_numeric',
    'numeric',
    'number',
    [
      ['0', 0],
      ['123456.789', 123456.789],
      ['-0.000001', -0.000001],
      ['1e20', 1e20, 'peer'],
      ['123456789012345678.9', 123456789012345680, 'peer'],
    ],
  ],
  [
    'a_money_like',
    'numeric(12,2)',
    'number',
    [
      ['12.30', 12.3],
      ['-999.99', -999.99],
    ],
  ],
  [
    'a_text',
    'text',
    'string',
    [
      ["''", ''],
      ["'plain'", 'plain'],
      ["E'tab\\t\\n\\r\\\\ \"quoted\" \\'s'", 'tab\t\n\r\\ "quoted" \'s'],
      ["'😀 日本語 é ' || chr(8232)", '😀 日本語 é \u2028'],
      ["E'\\x01\\x7f'", '\u0001\u007f'],
      ["'\\N'", '\\N'],
      ["repeat('x', 20000)", 'x'.repeat(20000)],
    ],
  ],
  [
    'a_varchar',
    'varchar(10)',
    'string',
    [
      ["'ten chars!'", 'ten chars!'],
      ["''", ''],
    ],
  ],
  [
    'a_char',
    'char(4)',
    'string',
    [
      ["'ab'", 'ab  '],
      ["'abcd'", 'abcd'],
    ],
  ],
  [
    'a_uuid',
    'uuid',
    'string',
    [["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']],
  ],
  [
    'a_enum',
    'mood',
    'string',
    [
      ["'sad'", 'sad'],
      ["'very happy'", 'very happy'],
    ],
  ],
  [
    'a_inet',
    'inet',
    'string',
    [
      ["'192.168.1.1'", '192.168.1.1', 'peer'],
      ["'10.1.0.0/16'", '10.1.0.0/16'],
      ["'::1'", '::1', 'peer'],
    ],
  ],
  ['a_cidr', 'cidr', 'string', [["'10.0.0.0/8'", '10.0.0.0/8']]],
  ['a_macaddr', 'macaddr', 'string', [["'08:00:2B:01:02:03'", '08:00:2b:01:02:03']]],
  ['a_pg_lsn', 'pg_lsn', 'string', [["'16/B374D848'", '16/B374D848']]],
  [
    'a_date',
    'date',
    'number',
    [
      ["'2024-02-29'", Date.UTC(2024, 1, 29)],
      ["'1969-12-31'", -86_400_000],
      ["'0001-01-01'", -62135596800000, 'peer'],
      ["'infinity'", null, 'peer'],
      ["'0044-03-15 BC'", -63517824000000, 'peer'],
    ],
  ],
  [
    'a_time',
    'time',
    'number',
    [
      ["'00:00:00'", 0],
      ["'23:59:59.999999'", 86_399_999],
      ["'24:00:00'", 86_400_000],
    ],
  ],
  [
    'a_timetz',
    'timetz',
    'number',
    [
      ["'12:00:00+02'", 36_000_000],
      ["'01:00:00+02'", 82_800_000],
      ["'23:00:00-02'", 3_600_000],
    ],
  ],
  [
    'a_timestamp',
    'timestamp',
    'number',
    [
      ["'2019-01-12 00:30:35.381101'", 1547253035381.101],
      ["'1970-01-01 00:00:00'", 0],
      ["'1969-12-31 23:59:59.999999'", -0.001, 'peer'],
      ["'infinity'", null, 'peer'],
      ["'12345-01-01 00:00:00'", 327403382400000],
    ],
  ],
  [
    'a_timestamptz',
    'timestamptz',
    'number',
    [
      ["'2019-01-12 00:30:35.381101+02'", 1547245835381.101],
      ["'2000-01-01Z'", 946684800000],
      ["'1900-06-01 00:00:00.000001Z'", -2195942399999.999, 'peer'],
    ],
  ],
  [
    'a_json',
    'json',
    'json',
    [
      ['\'{"b": 1, "a": [1.50, null, "x"]}\'', {b: 1, a: [1.5, null, 'x']}],
      ['\'"text"\'', 'text'],
      ["'17'", 17],
      ["'null'", null],
      ["'[]'", []],
      ['\'{"a": 1, "a": 2}\'', {a: 2}],
    ],
  ],
  [
    'a_jsonb',
    'jsonb',
    'json',
    [
      ['\'{"": {"é": "\\u0001"}, "n": 1e2}\'', {'': {é: '\u0001'}, 'n': 100}],
      ["'false'", false],
    ],
  ],
  [
    'a_int4s',
    'int4[]',
    'json',
    [
      ["'{1,-2,3}'", [1, -2, 3]],
      ["'{}'", []],
      [
        "'{{1,2},{3,4}}'",
        [
          [1, 2],
          [3, 4],
        ],
      ],
      ["'[5:6]={7,8}'", [7, 8], 'peer'],
      ["'{1,NULL}'", [1, null]],
    ],
  ],
  [
    'a_int8s',
    'int8[]',
    'json',
    [
      ["'{1,9007199254740991}'", [1, 9007199254740991]],
      ["'{NULL,1}'", [null, 1], 'peer'],
    ],
  ],
  [
    'a_texts',
    'text[]',
    'json',
    [
      [
        "array['a', '', 'b,c', 'd\"e', '{f}', 'null', e'g\\\\h']",
        ['a', '', 'b,c', 'd"e', '{f}', 'null', 'g\\h'],
      ],
      ["'{a,NULL}'", ['a', null], 'peer'],
    ],
  ],
  [
    'a_bools',
    'bool[]',
    'json',
    [
      ["'{t,f}'", [true, false]],
      ["'{t,NULL}'", [true, null], 'peer'],
    ],
  ],
  ['a_float8s', 'float8[]', 'json', [["'{0.1,-2.5}'", [0.1, -2.5]]]],
  ['a_numerics', 'numeric[]', 'json', [["'{1.25,-3}'", [1.25, -3]]]],
  [
    'a_uuids',
    'uuid[]',
    'json',
    [
      [
        "array['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']::uuid[]",
        ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
      ],
    ],
  ],
  ['a_enums', 'mood[]', 'json', [['\'{sad,"very happy"}\'', ['sad', 'very happy']]]],
  [
    'a_timestamps',
    'timestamp[]',
    'json',
    [["array['2019-01-12 00:30:35.381101']::timestamp[]", [1547253035381.101]]],
  ],
  ['a_dates', 'date[]', 'json', [["'{2024-02-29}'", [Date.UTC(2024, 1, 29)]]]],
  ['a_jsonbs', 'jsonb[]', 'json', [['array[\'{"a": [1]}\', \'"s"\']::jsonb[]', [{a: [1]}, 's']]]],
  [
    'a_inets',
    'inet[]',
    'json',
    [["'{10.0.0.1,10.1.0.0/16}'", ['10.0.0.1', '10.1.0.0/16'], 'peer']],
  ],
];

/** Columns no client can see; the rest of the table must be served all the same. */
export const UNSUPPORTED = [
  ['x_bytea', 'bytea', "'\\xdeadbeef'"],
  ['x_interval', 'interval', "'1 day 2 hours'"],
  ['x_money', 'money', "'12.34'"],
  ['x_range', 'int4range', "'[1,5)'"],
  ['x_bits', 'bit(4)', "'1010'"],
  ['x_xml', 'xml', "'<a/>'"],
  ['x_domain', 'positive', '5'],
  ['x_composite', 'pair', "'(1,two)'"],
  ['x_tsvector', 'tsvector', "'fat cat'"],
];

const shape = name =>
  table(name)
    .columns({
      id: number(),
      ...Object.fromEntries(COLUMNS.map(([column, , kind]) => [column, KINDS[kind]().optional()])),
    })
    .primaryKey('id');

/** Three tables of one shape: filled before the copy, by inserts, by updates. */
export const TABLES = ['copied', 'inserted', 'updated'];

export const typesSchema = createSchema({
  tables: TABLES.map(shape),
  enableLegacyQueries: true,
});

/** The statements that make the tables. */
export const DDL = [
  `create type mood as enum ('very happy', 'sad')`,
  `create domain positive as int check (value > 0)`,
  `create type pair as (a int, b text)`,
  ...TABLES.map(
    name => `create table ${name} (id int primary key,
    ${COLUMNS.map(([column, type]) => `${column} ${type}`).join(', ')},
    ${UNSUPPORTED.map(([column, type]) => `${column} ${type}`).join(', ')})`,
  ),
  `create table without_key (a int, b text)`,
  `create table big (id int primary key, value int8 not null)`,
];

/** How many rows it takes to show every value; row 0 is all nulls. */
const rowsFor = peer => 1 + Math.max(...COLUMNS.map(c => valuesOf(c, peer).length));
const valuesOf = (column, peer) => column[3].filter(value => !peer || value[2] !== 'peer');

/** The rows as SQL literals by column, in order of `id`. */
export function literals(peer) {
  return Array.from({length: rowsFor(peer)}, (_, id) => {
    const own = COLUMNS.map(c => [
      c[0],
      id === 0 ? 'null' : (valuesOf(c, peer)[id - 1]?.[0] ?? 'null'),
    ]);
    const odd = UNSUPPORTED.map(([column, , literal]) => [column, id === 1 ? literal : 'null']);
    return {id, values: Object.fromEntries([...own, ...odd])};
  });
}

/** The rows as a client must see them, in order of `id`. */
export function expected(peer) {
  return Array.from({length: rowsFor(peer)}, (_, id) => ({
    id,
    ...Object.fromEntries(
      COLUMNS.map(c => [c[0], id === 0 ? null : (valuesOf(c, peer)[id - 1]?.[1] ?? null)]),
    ),
  }));
}
