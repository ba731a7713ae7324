// The demo, in a real browser: `kelvin demo` as a person starts it, and its page on a server that
// goes away and comes back.

import {strict as assert} from 'node:assert';
import {execFileSync} from 'node:child_process';
import {existsSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {startBrowser} from '../harness/browser.js';
import {eventually} from '../harness/deadline.js';
import {ROOT, kelvinBinary} from '../harness/paths.js';
import {freePort} from '../harness/ports.js';
import {Cluster} from '../harness/postgres.js';
import {Child} from '../harness/process.js';
import {PEER, SyncServer} from '../harness/server.js';
import {serveFolder} from '../harness/static.js';
import {deployPermissions} from '../harness/world.js';

const DIST = join(ROOT, 'server/demo/dist');
const skip = (PEER && 'about kelvin') || (!existsSync(DIST) && 'the page is not built');

/** Elements of the page, by the name it gives them for tests. */
const at = (page, id) => page.getByTestId(id);
/** The rows of the list in sight: id and title. */
const rows = page =>
  at(page, 'issue-row').evaluateAll(all =>
    all.map(row => ({
      id: row.dataset.id,
      title: row.querySelector('[data-testid=issue-row-title]')?.textContent,
    })),
  );

/** Waits until the list is there and the server has answered. */
async function loaded(page) {
  await page.waitForSelector('[data-testid=issue-list][data-complete=true]');
  await page.waitForSelector('[data-testid=issue-row]');
  await page.waitForSelector('[data-testid=status][data-state=connected]');
}

const titled = (page, title) => page.getByTestId('issue-row-title').filter({hasText: title});

describe('kelvin demo', {skip}, () => {
  let demo, browser, url, database;

  before(async () => {
    const [port, webPort] = [await freePort(), await freePort()];
    demo = new Child(
      'demo',
      kelvinBinary(),
      [
        'demo',
        '--activity',
        '0',
        '--issues',
        '5000',
        '--port',
        String(port),
        '--web-port',
        String(webPort),
        '--assets',
        DIST,
      ],
      {env: {PATH: process.env.PATH, HOME: process.env.HOME}},
    );
    url = `http://localhost:${webPort}`;
    await demo.ready(async () => /kelvin demo is running/.test(demo.log), 120_000);
    database = demo.log.match(/postgres(?:ql)?:\/\/\S+/)[0];
    browser = await startBrowser();
  });

  after(async () => {
    await browser?.stop();
    demo?.keepLog('browser');
    await demo?.stop('SIGINT');
  });

  /** Runs a statement as a person would, and returns what psql prints. */
  const psql = statement =>
    execFileSync('psql', [database, '-qAtc', statement], {encoding: 'utf8'}).trim();

  test('the page loads and shows issues', async () => {
    const page = await browser.open(url);
    await loaded(page);
    assert((await rows(page)).length >= 10);
    const [newest] = await rows(page);
    assert.equal(
      newest.title,
      psql(`select title from issues where state = 'open'
      order by modified desc, id limit 1`),
    );
    await browser.picture(page, 'demo-first-load');
    await page.close();
  });

  test('a change made with psql appears', async () => {
    const page = await browser.open(url);
    await loaded(page);
    psql(`update issues set title = 'Hello from SQL', state = 'open' where number = 4242`);
    await titled(page, 'Hello from SQL').waitFor();
    await browser.picture(page, 'demo-psql-change');
    await page.close();
  });

  test('an edit in the page is instant and reaches PostgreSQL', async () => {
    const page = await browser.open(`${url}/issue/issue-17`);
    await loaded(page);
    await page.waitForSelector('[data-testid=detail][data-id=issue-17][data-complete=true]');
    const title = at(page, 'detail-title');
    await title.fill('Edited in the page');
    await title.press('Enter');
    await eventually(
      'the edit in PostgreSQL',
      () => psql(`select title from issues where id = 'issue-17'`) === 'Edited in the page',
    );
    await at(page, 'comment-input').fill('A comment from the page');
    await at(page, 'comment-submit').click();
    await at(page, 'comment-body').filter({hasText: 'A comment from the page'}).waitFor();
    await eventually(
      'the comment in PostgreSQL',
      () =>
        psql(
          `select body from comments where issue_id = 'issue-17' order by created desc limit 1`,
        ) === 'A comment from the page',
    );
    await browser.picture(page, 'demo-edit');
    await page.close();
  });

  test('two tabs stay equal', async () => {
    const [a, b] = [await browser.open(url), await browser.open(url)];
    await loaded(a);
    await loaded(b);
    for (const [i, id] of ['issue-7', 'issue-8', 'issue-9'].entries()) {
      psql(`update issues set title = 'Seen by both ${i}', state = 'open' where id = '${id}'`);
    }
    await a.goto(`${url}/issue/issue-9`);
    await a.waitForSelector('[data-testid=detail][data-id=issue-9][data-complete=true]');
    await at(a, 'detail-title').fill('Written by one tab');
    await at(a, 'detail-title').press('Enter');
    await titled(b, 'Written by one tab').waitFor();
    await eventually('the tabs to be equal', async () => {
      const [left, right] = [await rows(a), await rows(b)];
      return (
        left.length > 5 && JSON.stringify(left.slice(0, 8)) === JSON.stringify(right.slice(0, 8))
      );
    });
    await browser.picture(b, 'demo-second-tab');
    await Promise.all([a.close(), b.close()]);
  });

  test('nothing in the page failed, and Ctrl-C ends and cleans everything', async () => {
    assert.deepEqual(browser.problems, []);
    const {code} = await demo.stop('SIGINT');
    assert.equal(code, 0, demo.tail());
    assert.throws(() => psql('select 1'), 'PostgreSQL has ended');
  });
});

describe('the page on a server that goes away', {skip}, () => {
  let cluster, sql, server, web, browser;

  before(async () => {
    cluster = await Cluster.start();
    sql = await cluster.createDatabase('demo');
    const source = name => readFileSync(join(ROOT, 'server/src/demo', `${name}.sql`), 'utf8');
    await sql.unsafe(source('schema'));
    await sql.unsafe(`
      insert into users select 'user-' || lpad(n::text, 3, '0'), 'User ' || n, '#888'
        from generate_series(1, 9) n;
      insert into projects values ('web', 'WEB', 'Web', '#0af'), ('api', 'API', 'API', '#fa0');
      insert into labels values ('bug', 'bug', '#f00');
      insert into issues select 'issue-' || n, n, (array['web', 'api'])[1 + n % 2], 'Issue ' || n,
        'Body ' || n, 'open', n % 5, 'user-001', 'user-002', 0, now() - n * interval '1 hour',
        now() - n * interval '1 minute' from generate_series(1, 300) n`);
    await sql.unsafe(source('finish').replaceAll(/^-----$/gm, ''));
    await sql.unsafe(source('triggers'));
    const allow = [['allow', {type: 'and', conditions: []}]];
    const all = {
      row: {
        select: allow,
        insert: allow,
        delete: allow,
        update: {preMutation: allow, postMutation: allow},
      },
    };
    const names = ['users', 'projects', 'issues', 'comments', 'labels', 'issue_labels'];
    const tables = Object.fromEntries(names.map(name => [name, all]));
    await deployPermissions(sql, {tables});
    server = await new SyncServer(cluster.url('demo')).start();
    web = await serveFolder(DIST, {server: server.url, database: 'tests'});
    browser = await startBrowser();
  });

  after(async () => {
    await browser?.stop();
    await web?.stop();
    await server?.dispose('page');
    await cluster?.stop();
  });

  test('a reload shows what is held, and catches up when the server is back', async () => {
    const page = await browser.open(web.url);
    await loaded(page);
    const before = await rows(page);
    assert(before.length > 5);
    await server.stop();
    await page.waitForSelector('[data-testid=status]:not([data-state=connected])');
    await page.reload();
    await page.waitForSelector('[data-testid=issue-row]');
    assert.deepEqual((await rows(page)).slice(0, 5), before.slice(0, 5));
    await browser.picture(page, 'demo-offline-reload');
    await sql`update issues set title = 'Changed while the server was away' where number = 250`;
    await sql`delete from issues where number = 1`;
    await server.start();
    await titled(page, 'Changed while the server was away').waitFor();
    await page.waitForSelector('[data-testid=status][data-state=connected]');
    await eventually(
      'the deleted issue to go',
      async () => !(await rows(page)).some(row => row.id === 'issue-1'),
    );
    await browser.picture(page, 'demo-caught-up');
    assert.deepEqual(browser.problems, []);
    await page.close();
  });
});
