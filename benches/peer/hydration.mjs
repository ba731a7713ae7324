// How long kelvin and zero-cache take to hydrate the same queries: 50 issues of a project, their
// comments, and the authors of these. Both follow one database, and take turns.
//
// Each query has another project, so that nobody has an answer ready. The time on the server is
// what each tells its client's inspector; the time until the rows are there is the client's.

import {connect} from '../../tests/harness/client.js';
import {within} from '../../tests/harness/deadline.js';
import {ADMIN_PASSWORD, SyncServer} from '../../tests/harness/server.js';
import {startWorld} from '../../tests/harness/world.js';
import {zql} from '../../tests/model/schema.js';

const WINDOW = 50;
const COMMENTS = 5;
/** Queries that are not counted: programs get faster while they run. */
const WARM_UP = 20;
const MEASURED = Number(process.env.KELVIN_BENCH_PEER_QUERIES ?? 100);
const PROJECTS = WARM_UP + MEASURED;
/** Projects of the model end below it. */
const FIRST_PROJECT = 1000;

const TABLES = `
  insert into "user" (id, name, email)
    select 'w' || n, 'Writer ' || n, n || '@example.com' from generate_series(1, 200) n;
  insert into issue (id, project_id, number, title, body, open, creator_id, created)
    select 'b' || n, ${FIRST_PROJECT} + n % ${PROJECTS}, n, 'Issue ' || n, repeat('text ', 30),
      n % 3 = 0, 'w' || 1 + n % 200, '2026-01-01'::timestamptz + n * interval '1 second'
    from generate_series(1, ${2 * WINDOW * PROJECTS}) n;
  insert into comment (id, issue_id, author_id, body, created)
    select i.id || '-' || n, i.id, 'w' || 1 + (i.number * 7 + n * 13) % 200, repeat('words ', 10),
      i.created
    from issue i, generate_series(1, ${COMMENTS}) n where i.id like 'b%';
  analyze;`;

const query = project =>
  zql.issue
    .where('projectID', FIRST_PROJECT + project)
    .orderBy('created', 'desc')
    .limit(WINDOW)
    .related('comments', comments => comments.related('author'));

/** A client that asks for one query after the other. */
class Asker {
  /** What hydrations took on the server, ms. */
  hydrations = [];
  /** From asking until the client had the rows, ms. */
  roundTrips = [];

  constructor(url) {
    this.client = connect(url);
  }

  async authenticate() {
    const {inspector} = this.client.zero;
    await within('the password', inspector.authenticate(ADMIN_PASSWORD));
  }

  /** Asks for the issues of a project, and then for what the server says of that query. */
  async ask(project, counted) {
    const started = performance.now();
    const view = this.client.watch(query(project));
    await view.complete();
    const took = performance.now() - started;
    if (
      view.data.length !== WINDOW ||
      view.data.some(issue => issue.comments.length !== COMMENTS)
    ) {
      throw new Error(`project ${project}: ${view.data.length} issues`);
    }
    const queries = await within('the queries', this.client.zero.inspector.client.queries());
    const asked = queries.find(one => one.clientZQL?.includes(`${FIRST_PROJECT + project}`));
    if (!(asked?.hydrateServer > 0)) throw new Error(`project ${project} was not hydrated`);
    if (counted) {
      this.hydrations.push(asked.hydrateServer);
      this.roundTrips.push(took);
    }
    view.destroy();
  }
}

const median = values => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

async function run() {
  const world = await startWorld({tables: TABLES});
  const peer = new SyncServer(world.server.upstream, world.server.env, true);
  /** @type {Asker[]} */
  let askers = [];
  try {
    await peer.start(300_000);
    askers = [world.server.url, peer.url].map(url => new Asker(url));
    for (const asker of askers) await asker.authenticate();
    for (let project = 0; project < PROJECTS; project += 1) {
      const order = project % 2 ? askers.toReversed() : askers;
      for (const asker of order) await asker.ask(project, project >= WARM_UP);
    }
    const [kelvin, zeroCache] = askers;
    const line = (what, of) => {
      const [ours, theirs] = [median(of(kelvin)), median(of(zeroCache))];
      const ratio = (theirs / ours).toFixed(1);
      console.log(`  ${what}: ${ours.toFixed(2)} ms / ${theirs.toFixed(2)} ms, ${ratio} times`);
    };
    console.log(`kelvin / zero-cache, medians of ${MEASURED} queries in one run:`);
    line('hydration, as the server measures it', asker => asker.hydrations);
    line('until the client has the rows', asker => asker.roundTrips);
  } finally {
    // The servers end even where a client does not, or what is measured next runs beside them.
    try {
      await Promise.all(askers.map(asker => asker.client.close()));
    } finally {
      await peer.dispose();
      await world.stop();
    }
  }
}

await run();
