// What a query does: the client's inspector asks the server, an operator asks with `kelvin analyze`,
// and the server lists the queries that cost most.

import {strict as assert} from 'node:assert';
import {spawn} from 'node:child_process';
import {after, before, describe, test} from 'node:test';
import {connect} from '../harness/client.js';
import {same} from '../harness/compare.js';
import {eventually, within} from '../harness/deadline.js';
import {kelvinBinary} from '../harness/paths.js';
import {ADMIN_PASSWORD, PEER} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {zql} from '../model/schema.js';

/** Exit codes of the command. */
const DONE = 0;
const FAILED = 1;
const WRONG_OPTIONS = 2;
const WARNINGS = 3;

/** Runs `kelvin analyze` with a query on its standard input. */
async function analyze(args, input = '', env = {}) {
  const child = spawn(kelvinBinary(), ['analyze', ...args], {
    env: {PATH: process.env.PATH, ...env},
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', data => (out += data));
  child.stderr.on('data', data => (err += data));
  child.stdin.end(input);
  const code = await within('the command', new Promise(done => child.on('close', done)));
  assert.doesNotMatch(err, /panicked|stack backtrace/);
  return {code, out, err};
}

const ISSUE_ONE = {
  table: 'issue',
  where: {
    type: 'simple',
    op: '=',
    left: {type: 'column', name: 'id'},
    right: {type: 'literal', value: 'i011'},
  },
};

describe('analyze', () => {
  let world;
  const clients = [];
  const client = () => {
    const c = connect(world.server.url, {userID: 'u1', auth: 'u1'});
    clients.push(c);
    return c;
  };
  /** A client whose inspector the server answers. */
  const inspected = async () => {
    const {zero} = client();
    const {inspector} = zero;
    const granted = await within('the password', inspector.authenticate(ADMIN_PASSWORD));
    assert.equal(granted, true);
    return inspector;
  };

  before(async () => {
    world = await startWorld({
      app: {
        user: headers => headers.authorization?.replace('Bearer ', '') ?? null,
        queries: {firstIssues: limit => zql.issue.orderBy('created', 'desc').limit(limit)},
      },
    });
  });

  after(async () => {
    await Promise.all(clients.map(c => c.close()));
    await world?.stop('analyze');
  });

  test('the inspector of the official client is told what a query read', async () => {
    const stranger = client().zero.inspector;
    assert.equal(await within('an answer', stranger.authenticate('wrong')), false);
    const inspector = await inspected();
    const query = zql.issue.whereExists('comments').orderBy('created', 'desc').limit(5);
    const whole = await inspector.analyzeQuery(query);
    const rows = Object.values(whole.syncedRows).flat();
    assert.equal(rows.length, whole.syncedRowCount);
    assert.equal(whole.syncedRows.issue.length, 5);
    assert(whole.elapsed >= 0 && whole.end >= whole.start);
    assert.match(whole.afterPermissions, /issue/);
    if (!PEER) {
      const counts = Object.values(whole.readRowCountsByQuery).flatMap(of => Object.values(of));
      assert.equal(
        counts.reduce((sum, n) => sum + n, 0),
        whole.readRowCount,
      );
      assert(whole.readRowCount >= 5);
      const plans = Object.entries(whole.sqlitePlans);
      assert.match(plans[0][0], /issue .*order by .* desc.* limit 5/);
      assert(
        plans.some(([query, lines]) => /exists/.test(query) && lines.length > 0),
        'the EXISTS',
      );
    }
    const brief = await inspector.analyzeQuery(query, {syncedRows: false});
    assert.equal(brief.syncedRows, undefined);
    assert.equal(brief.syncedRowCount, whole.syncedRowCount);
  });

  test('the inspector shows the rows of a query and how long the server took for it', async () => {
    const c = client();
    const view = c.watch(zql.issue.where('open', true).related('comments').orderBy('id', 'asc'));
    await view.complete();
    const {inspector} = c.zero;
    await within('the password', inspector.authenticate(ADMIN_PASSWORD));
    const shown = async () => {
      const queries = await within('the queries', inspector.client.queries());
      return queries.find(query => /issue/.test(query.clientZQL));
    };
    const rows = new Set(view.data.flatMap(issue => [issue, ...issue.comments])).size;
    const fresh = await shown();
    assert(fresh.hydrateServer > 0);
    assert.equal(fresh.rowCount, rows);
    if (!PEER) assert.equal(fresh.updateServerP50, null, 'nothing has changed yet');

    const {id} = view.data[0];
    await world.sql`update issue set votes = votes + 1 where id = ${id}`;
    const votes = view.data[0].votes + 1;
    await eventually('the update', () => view.data[0].votes === votes);
    await eventually('its time', async () => (await shown()).updateServerP50 > 0);
    const metrics = await within('the metrics', inspector.metrics());
    assert(metrics['query-materialization-server'].quantile(0.5) > 0);
    assert(metrics['query-update-server'].quantile(0.5) > 0);
  });

  test('a named query is analyzed the way the application defines it', async () => {
    const inspector = await inspected();
    const result = await inspector.analyzeNamedQuery('firstIssues', [3]);
    same(Object.keys(result.syncedRows), ['issue'], 'tables');
    assert.equal(result.syncedRowCount, 3);
    await assert.rejects(inspector.analyzeNamedQuery('nobody', []));
  });

  test('permissions apply to what the inspector asks for', async () => {
    const inspector = await inspected();
    const [row] = await world.sql`select permissions from zero.permissions`;
    const closed = structuredClone(row.permissions);
    closed.tables.issue.row.select = [];
    const deploy = permissions =>
      world.sql`update zero.permissions set permissions = ${world.sql.json(permissions)}`;
    await deploy(closed);
    const count = async () => (await inspector.analyzeQuery(zql.issue)).syncedRowCount;
    try {
      await eventually('the rule to be there', async () => (await count()) === 0);
    } finally {
      await deploy(row.permissions);
    }
    await eventually('the rule to be gone', async () => (await count()) > 0);
  });

  test('a query that makes no sense is answered with a reason', async () => {
    const inspector = await inspected();
    // The client validates the answer as a result, so that it shows no reason, but it does not hang.
    const answer = inspector.analyzeServerAST({table: 'nowhere'});
    await assert.rejects(within('an answer', answer), /op Got "error"/);
    assert.equal((await inspector.analyzeQuery(zql.label)).syncedRowCount, 5);
  });

  test('kelvin analyze asks a server that runs', {skip: PEER}, async () => {
    const server = ['--server', world.server.url];
    const env = {ZERO_ADMIN_PASSWORD: ADMIN_PASSWORD};
    const query = JSON.stringify(ISSUE_ONE);
    const tree = await analyze(server, query, env);
    assert.equal(tree.code, DONE, tree.err);
    assert.match(tree.out, /issue where id = "i011"/);
    assert.match(tree.out, /SEARCH issue USING PRIMARY KEY \(id=\?\)/);
    assert.match(tree.out, /1 rows, 1 examined/);
    const json = JSON.parse((await analyze([...server, '--json'], query, env)).out);
    assert.equal(json.rows, 1);
    assert.equal(json.nodes[0].reads[0].estimated, 1);
    const unnamed = {table: 'issue', where: {...ISSUE_ONE.where}};
    unnamed.where.left = {type: 'column', name: 'title'};
    unnamed.where.right = {type: 'literal', value: 'x'};
    const scan = await analyze(server, JSON.stringify(unnamed), env);
    assert.equal(scan.code, WARNINGS, scan.err);
    assert.match(scan.out, /SCAN issue/);
    assert.match(scan.out, /an index on issue \(title\)/);
  });

  test('kelvin analyze says what is wrong', {skip: PEER}, async () => {
    const env = {ZERO_ADMIN_PASSWORD: ADMIN_PASSWORD};
    const server = ['--server', world.server.url];
    for (const [args, input, code, message, its = env] of [
      [['--verbose'], '', WRONG_OPTIONS, /there is no option --verbose/],
      [server, '{', FAILED, /not an AST/],
      [server, '{"table": "nowhere"}', FAILED, /nowhere/],
      [server, '{"table": "issue"}', FAILED, /admin password/, {}],
      [['--server', 'http://127.0.0.1:9'], '{"table": "issue"}', FAILED, /refused/],
      [[...server, '--plan', 'zz'], '', FAILED, /not exactly one live plan/],
      [['--replica-file', `${world.server.folder}/no`], '{"table": "issue"}', FAILED, /no\.kelvin/],
      [
        ['--replica-file', `${world.server.folder}/replica.db`],
        '{"table": "issue"}',
        FAILED,
        /--server/,
      ],
    ]) {
      const ended = await analyze(args, input, its);
      assert.equal(ended.code, code, `${args}: ${ended.err}`);
      assert.match(ended.err, message);
    }
    assert.match((await analyze(['--help'])).out, /Exit codes/);
  });

  test('the queries that cost most are listed and can be looked into', {skip: PEER}, async () => {
    const c = client();
    const view = c.watch(zql.issue.related('comments'));
    await view.complete();
    const authorization = `Basic ${Buffer.from(`x:${ADMIN_PASSWORD}`).toString('base64')}`;
    const get = path => fetch(`${world.server.url}${path}`, {headers: {authorization}});
    assert.equal((await fetch(`${world.server.url}/queryz`)).status, 401);
    await world.sql`update issue set title = title || '!' where id = 'i011'`;
    const changed = await eventually('the change to be counted', async () => {
      const list = await (await get('/queryz?n=5')).json();
      assert(list.slowest.length <= 5 && list.widest.length <= 5);
      const found = list.widest.find(plan => plan.query.startsWith('issue [related comment'));
      return found?.deltas > 0 && found;
    });
    assert.equal(changed.subscribers, 1);
    assert(changed.rows > 10 && changed.hydrationExamined >= changed.rows);
    assert(changed.advances >= 1 && changed.deltaRows >= 1);
    const env = {ZERO_ADMIN_PASSWORD: ADMIN_PASSWORD};
    const id = changed.plan.slice(0, 12);
    const again = await analyze(['--server', world.server.url, '--plan', id, '--json'], '', env);
    assert.equal(JSON.parse(again.out).rows, changed.rows, again.err);
    const metrics = await (await get('/metrics')).text();
    for (const name of [
      'plan_rows',
      'plan_advances',
      'plan_delta_rows',
      'plan_hydration_seconds',
    ]) {
      const value = Number(metrics.match(new RegExp(`^kelvin_${name} (.*)$`, 'm'))?.[1]);
      assert(value > 0, name);
    }
  });

  test('kelvin analyze asks the replica of a server that does not run', {skip: PEER}, async () => {
    await world.server.stop();
    const file = `${world.server.folder}/replica.db`;
    const ended = await analyze(['--replica-file', file], JSON.stringify(ISSUE_ONE));
    assert.equal(ended.code, DONE, ended.err);
    assert.match(ended.out, /1 rows, 1 examined/);
    await world.server.start();
  });
});
