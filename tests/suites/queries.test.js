// Queries: what official clients hold equals what PostgreSQL answers, at rest and after each of a
// series of transactions. Every query has a client of its own, so that no client's local rows can
// make up for what the server forgot to send for another query.

import {after, before, describe, test} from 'node:test';
import {defineQueries, defineQuery} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {restrict, same} from '../harness/compare.js';
import {eventually} from '../harness/deadline.js';
import {oracle} from '../harness/oracle.js';
import {PEER} from '../harness/server.js';
import {startWorld} from '../harness/world.js';
import {CASES} from '../model/queries.js';
import {CHANGES} from '../model/changes.js';
import {zql} from '../model/schema.js';

const filter = new RegExp(process.env.TEST_QUERY ?? '');
const cases = CASES.filter(c => filter.test(c.name) && !(PEER && c.peer));

/** Name of the named query that stands for the case with an index. */
const nameOf = index => `case${index}`;

describe('queries', () => {
  let world, sql, server, ask;
  let failed = false;
  /** Clients no longer follow: nothing after that says anything. */
  let lost = false;
  /** @type {{case: import('../model/queries.js').Case, view: any, marker: any, client: any}[]} */
  const watched = [];
  /** One client with all queries: what a query drops may be what another one holds. */
  let crowd;
  const crowded = [];

  before(async () => {
    const queries = Object.fromEntries(cases.map((c, i) => [nameOf(i), () => c.query]));
    world = await startWorld({app: {queries}});
    ({sql, server} = world);
    ask = oracle(sql);
    // A query the client cannot evaluate is a named one: the client's own version of it says
    // which of the rows it holds are shown.
    const named = defineQueries(
      Object.fromEntries(cases.map((c, i) => [nameOf(i), defineQuery(() => c.client ?? c.query)])),
    );
    for (const [i, c] of cases.entries()) {
      const client = connect(server.url);
      const view = client.watch(c.client ? named[nameOf(i)]() : c.query);
      watched.push({case: c, view, marker: client.watch(zql.marker), client});
    }
    crowd = connect(server.url);
    for (const c of cases.filter(c => !c.client)) crowded.push({c, view: crowd.watch(c.query)});
    crowd.marker = crowd.watch(zql.marker);
  });

  after(async () => {
    await Promise.all(watched.map(w => w.client.close()));
    await crowd?.close();
    await world?.stop(failed ? 'queries' : undefined);
  });

  /** Compares one view with PostgreSQL, by both oracles. */
  async function check({case: c, view}, where = '') {
    if (!c.handOnly) {
      same(view.data, await ask(c.query), `${c.name} ${where}: not as PostgreSQL`);
    }
    if (!c.sql) return;
    const rows = await sql.unsafe(c.sql);
    const shown = rows.length > 0 ? restrict(view.data, [...rows]) : view.data;
    same(shown, [...rows], `${c.name} ${where}: not as the hand-written statement`);
  }

  async function checkAll(t) {
    await t.test('all queries in one client', async () => {
      for (const {c, view} of crowded) await check({case: c, view}, 'in one client');
    });
    for (const w of watched) {
      await t.test(w.case.name, async () => {
        try {
          await check(w);
        } catch (error) {
          failed = true;
          throw error;
        }
      });
    }
  }

  test('at rest', async t => {
    for (const w of watched) {
      await Promise.all([w.view.complete(), w.marker.complete()]).catch(error => {
        lost = failed = true;
        const why = JSON.stringify([w.client.errors, w.client.states]);
        throw new Error(`${w.case.name}: ${error.message}\n${why}`);
      });
    }
    for (const {view} of crowded) await view.complete();
    await crowd.marker.complete();
    await checkAll(t);
  });

  for (const [index, change] of CHANGES.entries()) {
    test(`after: ${change.name}`, async t => {
      if (lost) return t.skip('the clients were lost before');
      const step = index + 1;
      await sql.begin(async tx => {
        for (const statement of change.statements) await tx.unsafe(statement);
        await tx`update marker set step = ${step}`;
      });
      // A commit reaches a client whole: with the marker, everything is there.
      const all = [...watched, {marker: crowd.marker, case: {name: 'all in one client'}}];
      for (const {marker, case: c} of all) {
        await eventually(
          `the client of "${c.name}" to see step ${step}`,
          () => marker.data[0]?.step === step,
          () => JSON.stringify(marker.data),
        ).catch(error => {
          lost = failed = true;
          throw error;
        });
      }
      await checkAll(t);
    });
  }
});
