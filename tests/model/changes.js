// The transactions of the query suite: each changes the database in a way of its own, and after
// each every view must equal PostgreSQL. The statements of a step run in one transaction.

/** @type {{name: string, statements: string[]}[]} */
export const CHANGES = [
  {
    name: 'insert rows of several tables',
    statements: [
      `insert into issue values ('i900', 1, 900, 'Heat leaks again', 'fresh', true, 'major', 2.5,
        12, 'u1', 'u2', 'i001', 2024, 1, '2023-11-20T08:00:00.123456Z',
        '2024-01-15 01:02:03.654321', '{"n": 900}', '{a,b,"c d"}')`,
      `insert into comment values ('c900', 'i900', 'u5', 'comment 1 new', '2024-04-01Z', true),
        ('c901', 'i002', null, 'comment 11', '2024-04-02Z', null)`,
      `insert into issue_label values ('i900', 1), ('i900', 2), ('i002', 2) on conflict do nothing`,
      `insert into reaction values ('c900', 'u1', '🎉')`,
    ],
  },
  {
    name: 'rows leave and enter filters',
    statements: [
      `update issue set open = not open where number % 4 = 1`,
      `update issue set severity = 'major' where severity = 'minor' and number < 30`,
    ],
  },
  {
    name: 'values become null and nulls become values',
    statements: [
      `update issue set owner_id = null, estimate = null where number in (1, 5, 9, 24)`,
      `update issue set owner_id = 'u3', estimate = 9.75, severity = 'blocker'
        where owner_id is null and number in (3, 7, 11, 900)`,
      `update "user" set manager_id = null where id = 'u2'`,
      `update "user" set manager_id = 'u8', organisation_id = null where id = 'u7'`,
      `update comment set pinned = true where pinned is null and id < 'c040'`,
    ],
  },
  {
    name: 'references point elsewhere',
    statements: [
      `update comment set issue_id = 'i003' where issue_id = 'i001'`,
      `update issue set project_id = 2 where number in (2, 14, 26)`,
      `update issue set parent_id = 'i002' where parent_id = 'i001'`,
      `update issue set milestone_year = 2025, milestone_number = 1 where number in (6, 8, 10)`,
    ],
  },
  {
    name: 'the order of a window changes',
    statements: [
      `update issue set created = created + interval '30 days' where number % 10 = 4`,
      `update issue set votes = 100 - votes where project_id in (1, 4)`,
      `update "user" set name = 'Ädel', reputation = 75 where id = 'u2'`,
      `update label set name = 'zzz' where id = 1`,
    ],
  },
  {
    name: 'rows are deleted from the middle of windows',
    statements: [
      `delete from issue where number in (0, 4, 13, 31)`,
      `delete from comment where id between 'c010' and 'c019'`,
      `delete from issue_label where label_id = 3`,
    ],
  },
  {
    name: 'primary keys change',
    statements: [
      `update issue set id = 'i0105' where id = 'i011'`,
      `update issue_label set issue_id = 'i0105' where issue_id = 'i011'`,
      `update comment set issue_id = 'i0105' where issue_id = 'i011'`,
      `update "user" set id = 'u2b' where id = 'u2'`,
      `update milestone set year = 2026 where project_id = 1 and year = 2025`,
      `update reaction set emoji = '❄️' where emoji = '👍'`,
    ],
  },
  {
    name: 'a row is deleted and inserted again under its key',
    statements: [
      `delete from issue where id = 'i002'`,
      `insert into issue (id, project_id, number, title, open, creator_id, created)
        values ('i002', 4, 902, 'reborn', true, 'u8', '2023-11-14Z')`,
      `delete from "user" where id = 'u5'`,
      `insert into "user" (id, name, email, reputation, active)
        values ('u5', 'Émile II', 'emile@example.org', -1, false)`,
    ],
  },
  {
    name: 'two rows swap a unique value',
    statements: [
      `update "user" set email = 'swap' where id = 'u1'`,
      `update "user" set email = 'ada@example.org' where id = 'u8'`,
      `update "user" set email = 'ada2@example.org' where id = 'u1'`,
    ],
  },
  {
    name: 'the last child of an EXISTS goes, the first one comes',
    statements: [
      `delete from comment where issue_id in ('i003', 'i007', 'i016')`,
      `insert into comment select 'n' || id, id, 'u3', 'comment 1', '2024-05-01Z', true
        from issue where number in (17, 18, 22)`,
      `delete from issue_label where label_id = 1 and issue_id < 'i020'`,
      `insert into issue_label values ('i017', 4), ('i018', 1) on conflict do nothing`,
    ],
  },
  {
    name: 'a transaction that changes nothing that is watched',
    statements: [`update project set name = name`, `update comment set body = body`],
  },
  {
    name: 'text with every kind of character',
    statements: [
      `update issue set title = E'tab\\t"quote" \\\\ 100% _ 😀' || chr(8232) || 'end', body = ''
        where number in (15, 16)`,
      `update "user" set name = repeat('長い', 3000) where id = 'u6'`,
      `update issue set meta = '{"a": [1.5, -0.0, 1e3], "b": {"c": null}, "": "é\\u0001"}',
        tags = '{{"nested"},{"array"}}' where number = 20`,
    ],
  },
  {
    name: 'a change of many rows',
    statements: [
      `insert into issue (id, project_id, number, title, open, creator_id, owner_id, created, votes)
        select 'm' || n, 1 + n % 2, 2000 + n, 'many ' || n, n % 2 = 0, 'u1', 'u' || n % 9,
        timestamptz '2023-11-14Z' + n * interval '1 minute', n % 20 from generate_series(1, 400) n`,
      `insert into comment select 'mc' || n, 'm' || n % 50, 'u' || n % 9, 'comment ' || n,
        timestamptz '2024-01-01Z' + n * interval '1 second', n % 3 = 0
        from generate_series(1, 300) n`,
    ],
  },
  {
    name: 'most of it is deleted again',
    statements: [
      `delete from issue where id like 'm%' and number % 7 <> 0`,
      `delete from comment where id like 'mc%' and id not like '%5'`,
    ],
  },
  {
    name: 'tables are truncated',
    statements: [`truncate reaction, issue_label`],
  },
  {
    name: 'truncated tables are filled again',
    statements: [
      `insert into issue_label select id, 1 + number % 4 from issue where number < 40`,
      `insert into reaction select id, 'u1', '🎉' from comment where pinned`,
    ],
  },
  {
    name: 'a savepoint is rolled back',
    statements: [
      `savepoint s`,
      `delete from issue`,
      `rollback to savepoint s`,
      `update issue set open = true where number = 12`,
    ],
  },
];
