// The rows the database starts with. Small enough to read, rich enough to have ties, nulls,
// orphans, empty relations, code points beyond the BMP and equal sort keys.

const USERS = [
  ['u1', 'Ada', 'ada@example.org', 120, true, null, 1],
  ['u2', 'Bo', 'bo@example.org', 40, true, 'u1', 1],
  ['u3', 'Çelik', 'celik@example.org', 40, true, 'u1', 2],
  ['u4', 'dora', 'dora@example.org', 0, false, 'u2', null],
  ['u5', 'Émile', 'emile@example.org', 75, true, 'u2', 3],
  ['u6', '😀 Smile', 'smile@example.org', -5, true, 'nobody', null],
  ['u7', '~ tilde', 'tilde@example.org', 75, false, null, 2],
  ['u8', 'ada', 'ada2@example.org', 1000, true, 'u3', 3],
];

const ORGANISATIONS = [
  [1, 'Ohm & Sons', 'DE', '1826-07-04'],
  [2, 'Volta', 'IT', '1800-03-20'],
  [3, 'Thomson', null, null],
  [4, 'Nobody here', 'NL', '1970-01-01'],
];

const PROJECTS = [
  [1, 'Absolute zero', 'u1', '1000000.50', false],
  [2, 'Triple point', 'u2', '0.10', null],
  [3, 'Empty project', null, null, true],
  [4, 'Entropy', 'u8', '-12.34', false],
];

const MILESTONES = [
  [1, 2024, 1, 'Alpha', '2024-03-01T00:00:00Z'],
  [1, 2024, 2, 'Beta', '2024-06-01T12:30:00Z'],
  [1, 2025, 1, 'Final', null],
  [2, 2024, 1, 'Only', '2024-12-31T23:59:59.999Z'],
  [4, 2023, 9, 'Past', '1969-12-31T23:59:59.5Z'],
];

const LABELS = [
  [1, 'bug', 'red'],
  [2, 'feature', 'green'],
  [3, 'question', null],
  [4, 'wontfix', 'grey'],
  [5, 'unused', 'blue'],
];

const TITLES = [
  'Heat leaks',
  'heat leaks',
  'Pump stalls',
  '100% humidity',
  'under_score',
  'back\\slash',
  'naïve café',
  'NAÏVE CAFÉ',
  '日本語のタイトル',
  '😀 grin',
  'two\nlines',
  '',
  'Zebra',
  'alpha',
  'Beta',
];
const SEVERITIES = [null, 'trivial', 'minor', 'major', 'blocker'];

/** The id of the organisation with a number. */
export const organisationId = n => `00000000-0000-4000-8000-00000000000${n}`;

/** A deterministic issue. */
export function issue(n) {
  const project = [1, 1, 1, 2, 2, 4][n % 6];
  return {
    id: `i${String(n).padStart(3, '0')}`,
    project_id: project,
    number: n,
    title: `${TITLES[n % TITLES.length]}${n % 4 === 0 ? '' : ` ${n}`}`,
    body: n % 5 === 0 ? null : `body of ${n} `.repeat(n % 3),
    open: n % 3 !== 0,
    severity: SEVERITIES[n % SEVERITIES.length],
    estimate: n % 7 === 0 ? null : (n % 9) / 2 - 1,
    votes: (n * 7919) % 13,
    creator_id: `u${(n % 8) + 1}`,
    owner_id: n % 4 === 3 ? null : `u${((n * 5) % 9) + 1}`,
    parent_id: n > 6 && n % 5 === 1 ? `i${String(n % 6).padStart(3, '0')}` : null,
    milestone_year: n % 2 === 0 ? 2024 : n % 3 === 0 ? 2025 : null,
    milestone_number: n % 5 === 4 ? null : (n % 2) + 1,
    created: new Date(1.7e12 + (n % 10) * 86_400_000).toISOString(),
    modified: n % 6 === 0 ? null : `2024-01-${String((n % 28) + 1).padStart(2, '0')} 10:00:00.123`,
    meta: n % 4 === 0 ? null : {n, nested: {list: [1, 'two', null, true]}, ключ: '🔑'},
    tags: n % 3 === 0 ? null : n % 3 === 1 ? [] : [`t${n % 4}`, 'quote"s', 'a,b', ''],
  };
}

/** How many issues the seed holds. */
export const ISSUES = 60;

function comments() {
  return Array.from({length: 90}, (_, n) => ({
    id: `c${String(n).padStart(3, '0')}`,
    issue_id: `i${String((n * n) % 37).padStart(3, '0')}`,
    author_id: n % 6 === 5 ? null : `u${(n % 8) + 1}`,
    body: n % 10 === 0 ? 'LGTM 👍' : `comment ${n % 17}`,
    created: new Date(1.71e12 + (n % 20) * 3_600_000).toISOString(),
    pinned: [true, false, null][n % 3],
  }));
}

/** Fills an empty database that has the tables of `schema.sql`. */
export async function seed(sql) {
  const rows = (names, table) => table.map(r => Object.fromEntries(names.map((k, i) => [k, r[i]])));
  await sql`insert into crm.organisation ${sql(
    ORGANISATIONS.map(([n, display_name, country, founded]) => ({
      org_id: organisationId(n),
      display_name,
      country,
      founded,
    })),
  )}`;
  await sql`insert into "user" ${sql(
    USERS.map(([id, name, email, reputation, active, manager_id, org]) => ({
      id,
      name,
      email,
      reputation,
      active,
      manager_id,
      organisation_id: org === null ? null : organisationId(org),
    })),
  )}`;
  const project = ['id', 'name', 'lead_id', 'budget', 'archived'];
  await sql`insert into project ${sql(rows(project, PROJECTS))}`;
  const milestone = ['project_id', 'year', 'number', 'title', 'due'];
  await sql`insert into milestone ${sql(rows(milestone, MILESTONES))}`;
  await sql`insert into label ${sql(rows(['id', 'name', 'colour'], LABELS))}`;
  const issues = Array.from({length: ISSUES}, (_, n) => issue(n));
  await sql`insert into issue ${sql(
    issues.map(i => ({...i, meta: i.meta === null ? null : sql.json(i.meta)})),
  )}`;
  // The driver's timestamps end at milliseconds; PostgreSQL's do not.
  await sql`update issue set modified = modified + interval '456 microseconds'`;
  await sql`insert into comment ${sql(comments())}`;
  const labelled = issues.flatMap((i, n) =>
    [1, 2, 3, 4]
      .filter(l => (n * l) % 5 === 1 || n % (l + 6) === 0)
      .map(l => ({issue_id: i.id, label_id: l})),
  );
  await sql`insert into issue_label ${sql([...labelled, {issue_id: 'gone', label_id: 1}])}`;
  const reactions = comments().flatMap((c, n) =>
    n % 3 === 0
      ? [{comment_id: c.id, user_id: `u${(n % 5) + 1}`, emoji: n % 2 === 1 ? '🎉' : '👍'}]
      : [],
  );
  await sql`insert into reaction ${sql(reactions)}`;
}
