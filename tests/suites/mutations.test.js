// Writes: what clients change, optimistically and in PostgreSQL; CRUD mutators with permissions,
// custom mutators run by the app's endpoint, and their errors.

import {strict as assert} from 'node:assert';
import {after, before, describe, test} from 'node:test';
import {
  ANYONE_CAN,
  ApplicationError,
  defineMutator,
  defineMutators,
  definePermissions,
  NOBODY_CAN,
} from '@rocicorp/zero';
import {connect} from '../harness/client.js';
import {eventually, within} from '../harness/deadline.js';
import {token} from '../harness/tokens.js';
import {startWorld} from '../harness/world.js';
import {openPermissions, schema, zql} from '../model/schema.js';

const SECRET = 'a secret of the tests that is long enough';

describe('CRUD mutations', () => {
  let world, client, other;

  before(async () => {
    // Labels may be read by all and written by nobody; comments only by their author.
    const all = await openPermissions(schema);
    const rules = await definePermissions(schema, () => {
      const author = (auth, {cmp}) => cmp('authorID', auth.sub);
      return {
        label: {
          row: {
            select: ANYONE_CAN,
            insert: NOBODY_CAN,
            delete: NOBODY_CAN,
            update: {preMutation: NOBODY_CAN, postMutation: NOBODY_CAN},
          },
        },
        comment: {
          row: {
            select: ANYONE_CAN,
            insert: [author],
            delete: [author],
            update: {preMutation: [author], postMutation: [author]},
          },
        },
      };
    });
    const tables = {...all.tables, ...rules.tables};
    world = await startWorld({
      permissions: {...all, tables},
      env: {ZERO_AUTH_SECRET: SECRET},
    });
    const auth = await token('u1', SECRET);
    client = connect(world.server.url, {auth});
    other = connect(world.server.url, {auth});
  });

  after(async () => {
    await client?.close();
    await other?.close();
    await world?.stop('crud');
  });

  test('insert, update, upsert and delete reach PostgreSQL and other clients', async () => {
    const mine = client.watch(zql.project.orderBy('id', 'asc'));
    const theirs = other.watch(zql.project.orderBy('id', 'asc'));
    await Promise.all([mine.complete(), theirs.complete()]);
    const {project} = client.zero.mutate;
    await project.insert({id: 50, name: 'made by a client', budget: 12.5});
    assert.equal(mine.data.find(p => p.id === 50)?.name, 'made by a client', 'it is instant');
    await eventually('the insert at another client', () => theirs.data.some(p => p.id === 50));
    await project.update({id: 50, leadID: 'u2', name: 'née 😀'});
    await eventually('the update', () => theirs.data.find(p => p.id === 50)?.leadID === 'u2');
    await project.upsert({id: 50, name: 'upserted', archived: true});
    await project.upsert({id: 51, name: 'inserted by upsert'});
    await eventually('the upserts', () => theirs.data.some(p => p.id === 51));
    const rows = await world.sql`select id, name, lead_id, archived, budget::float8
      from project where id in (50, 51) order by id`;
    assert.deepEqual(
      rows.map(r => ({...r})),
      [
        {id: 50, name: 'upserted', lead_id: 'u2', archived: true, budget: 12.5},
        {id: 51, name: 'inserted by upsert', lead_id: null, archived: null, budget: null},
      ],
    );
    await project.delete({id: 50});
    await project.delete({id: 51});
    await eventually('the deletes', () => !theirs.data.some(p => p.id >= 50));
    assert.deepEqual([...(await world.sql`select id from project where id >= 50`)], []);
  });

  test('values of every kind arrive in PostgreSQL as they were meant', async () => {
    const view = other.watch(zql.issue.where('id', 'made'));
    await view.complete();
    await client.zero.mutate.issue.insert({
      id: 'made',
      projectID: 1,
      number: 7001,
      title: "“quotes” '\\ 😀",
      open: false,
      votes: 3,
      severity: 'blocker',
      estimate: 0.1,
      creatorID: 'u1',
      created: 1.7e12 + 0.25,
      modified: Date.UTC(2024, 1, 29, 1, 2, 3),
      meta: {a: [1, null, {b: 'c'}]},
      tags: ['x', 'y z'],
      milestoneYear: 2024,
      milestoneNumber: 2,
    });
    await eventually('the row at another client', () => view.data.length === 1);
    const [row] = await world.sql`select title, severity::text, estimate, meta, tags,
      extract(epoch from created)::float8 * 1000 as created, modified::text, votes::int
      from issue where id = 'made'`;
    assert.deepEqual(
      {...row},
      {
        title: "“quotes” '\\ 😀",
        severity: 'blocker',
        estimate: 0.1,
        meta: {a: [1, null, {b: 'c'}]},
        tags: ['x', 'y z'],
        created: 1.7e12 + 0.25,
        modified: '2024-02-29 01:02:03',
        votes: 3,
      },
    );
    assert.deepEqual(view.data[0].tags, ['x', 'y z']);
    await client.zero.mutate.issue.update({id: 'made', estimate: null, meta: null, tags: []});
    await eventually('nulls', () => view.data[0].estimate === null && view.data[0].meta === null);
    await client.zero.mutate.issue.delete({id: 'made'});
  });

  test('a batch is one transaction', async () => {
    const view = other.watch(zql.milestone.where('year', 2030));
    await view.complete();
    await client.zero.mutateBatch(async tx => {
      for (const number of [1, 2, 3]) {
        await tx.milestone.insert({projectID: 1, year: 2030, number, title: `m${number}`});
      }
    });
    await eventually('the batch', () => view.data.length > 0);
    assert.equal(view.data.length, 3, 'it is seen whole');
    const [{count}] = await world.sql`select count(distinct xmin::text)::int from milestone
      where year = 2030`;
    assert.equal(count, 1);
  });

  test('many mutations in a row keep their order', async () => {
    const view = other.watch(zql.project.where('id', 60));
    await view.complete();
    await client.zero.mutate.project.insert({id: 60, name: '0'});
    for (let i = 1; i <= 100; i += 1) {
      await client.zero.mutate.project.update({id: 60, name: String(i)});
    }
    await eventually('the last one', () => view.data[0]?.name === '100');
    const [{name}] = await world.sql`select name from project where id = 60`;
    assert.equal(name, '100');
  });

  test('a write that the rules deny is taken back', async () => {
    const mine = client.watch(zql.label.orderBy('id', 'asc'));
    await mine.complete();
    await client.zero.mutate.label.update({id: 1, name: 'denied'});
    await client.zero.mutate.label.insert({id: 700, name: 'denied'});
    await client.zero.mutate.label.delete({id: 2});
    // Later mutations of the client are not held up, and with them the denied ones are settled.
    await client.zero.mutate.project.upsert({id: 61, name: 'after the denied ones'});
    await eventually(
      'the denied writes to be taken back',
      () =>
        mine.data.find(l => l.id === 1)?.name === 'bug' &&
        !mine.data.some(l => l.id === 700) &&
        mine.data.some(l => l.id === 2),
    );
    assert.deepEqual(
      (await world.sql`select name from label where id in (1, 700)`).map(l => l.name),
      ['bug'],
    );
    await client.state('connected');
  });

  test('a rule about the row before and after decides each write', async () => {
    const mine = client.watch(zql.comment.where('id', 'IN', ['mine', 'theirs', 'c001']));
    await mine.complete();
    const {comment} = client.zero.mutate;
    await comment.insert({
      id: 'mine',
      issueID: 'i001',
      authorID: 'u1',
      body: 'allowed',
      created: 1e12,
    });
    await comment.insert({
      id: 'theirs',
      issueID: 'i001',
      authorID: 'u2',
      body: 'no',
      created: 1e12,
    });
    await comment.update({id: 'c001', body: 'not the author'});
    await comment.update({id: 'mine', authorID: 'u2'});
    await client.zero.mutate.project.upsert({id: 62, name: 'settles what was before'});
    await eventually(
      'the denied writes to be taken back',
      () =>
        mine.data.length === 2 &&
        mine.data.find(c => c.id === 'mine')?.authorID === 'u1' &&
        mine.data.find(c => c.id === 'c001')?.body !== 'not the author',
    );
    const rows = await world.sql`select id, author_id from comment where id in ('mine', 'theirs')`;
    assert.deepEqual(
      rows.map(r => ({...r})),
      [{id: 'mine', author_id: 'u1'}],
    );
  });

  test('a write PostgreSQL refuses is reported, taken back, and later ones go on', async () => {
    const mine = client.watch(zql.issue.where('number', 7100));
    await mine.complete();
    const bad = {
      id: 'bad',
      projectID: 1,
      number: 7100,
      title: 't',
      open: true,
      votes: 0,
      creatorID: 'u1',
      created: 1e12,
    };
    await client.zero.mutate.issue.insert({...bad, severity: 'no such severity'});
    await client.zero.mutate.issue.insert({...bad, id: 'good'});
    await eventually(
      'the good one alone',
      () => mine.data.length === 1 && mine.data[0].id === 'good',
    );
    await eventually(
      'the good one in PostgreSQL',
      async () => (await world.sql`select from issue where id = 'good'`).length === 1,
    );
  });
});

describe('custom mutations', () => {
  let world, sql, api, server, client, other;

  const mutators = defineMutators({
    rename: defineMutator(async ({tx, args}) => {
      await tx.mutate.project.update({id: args.id, name: args.name});
    }),
    refuse: defineMutator(async ({tx, args}) => {
      await tx.mutate.project.update({id: args.id, name: 'never'});
      if (tx.location === 'server')
        throw new ApplicationError('refused', {details: {why: args.id}});
    }),
    crash: defineMutator(async ({tx}) => {
      if (tx.location === 'server') throw new Error('a fault of the app');
    }),
    count: defineMutator(async ({tx, args}) => {
      const [row] = await tx.run(zql.project.where('id', args.id));
      await tx.mutate.project.update({id: args.id, budget: (row?.budget ?? 0) + 1});
    }),
    nothing: defineMutator(async () => {}),
  });

  before(async () => {
    const onServer = Object.fromEntries(
      Object.keys(mutators)
        .filter(name => name !== '~')
        .map(name => [name, (tx, args) => mutators[name].fn({tx, args, ctx: undefined})]),
    );
    world = await startWorld({app: {mutators: onServer}});
    ({sql, api, server} = world);
    client = connect(server.url, {mutators});
    other = connect(server.url, {mutators});
  });

  after(async () => {
    await client?.close();
    await other?.close();
    await world?.stop('custom');
  });

  test('a mutator runs here at once and there for good', async () => {
    const mine = client.watch(zql.project.where('id', 1));
    const theirs = other.watch(zql.project.where('id', 1));
    await Promise.all([mine.complete(), theirs.complete()]);
    const run = client.zero.mutate(mutators.rename({id: 1, name: 'renamed'}));
    await run.client;
    assert.equal(mine.data[0].name, 'renamed');
    const result = await within('the server', run.server);
    assert.equal(result?.type ?? 'success', 'success');
    await eventually('the change at another client', () => theirs.data[0].name === 'renamed');
    const push = api.requests.find(r => r.path === '/mutate');
    assert.equal(push.params.get('schema'), 'zero_0');
    assert.equal(push.params.get('appID'), 'zero');
  });

  test('an error of the app reaches the client and takes the change back', async () => {
    const mine = client.watch(zql.project.where('id', 2));
    await mine.complete();
    const run = client.zero.mutate(mutators.refuse({id: 2}));
    await run.client;
    assert.equal(mine.data[0].name, 'never');
    const result = await within('the server', run.server);
    assert.equal(result.type, 'error');
    assert.equal(result.error.type, 'app');
    assert.equal(result.error.message, 'refused');
    assert.deepEqual(result.error.details, {why: 2});
    await eventually('the change to be taken back', () => mine.data[0].name === 'Triple point');
    await eventually(
      'the result to be cleaned up',
      async () => (await sql`select from zero_0.mutations`).length === 0,
    );
    await client.state('connected');
  });

  test('an unexpected error of the app reaches the client too', async () => {
    const result = await within('the server', client.zero.mutate(mutators.crash()).server);
    assert.equal(result.type, 'error');
    const after = await within('the server', client.zero.mutate(mutators.nothing()).server);
    assert.notEqual(after?.type, 'error');
  });

  test('each mutation takes effect once, whatever is sent twice', async () => {
    const mine = client.watch(zql.project.where('id', 4));
    await mine.complete();
    const before = mine.data[0].budget;
    const runs = Array.from({length: 30}, () => client.zero.mutate(mutators.count({id: 4})));
    await within('all of them', Promise.all(runs.map(run => run.server)));
    const [{budget}] = await sql`select budget::float8 from project where id = 4`;
    assert.equal(Math.round(budget - before), 30);
  });

  test('mutations made while the server is away arrive when it is back', async () => {
    const mine = client.watch(zql.project.where('id', 3));
    await mine.complete();
    await server.stop();
    const run = client.zero.mutate(mutators.rename({id: 3, name: 'while away'}));
    run.server.catch(() => {});
    await run.client;
    assert.equal(mine.data[0].name, 'while away');
    await server.start();
    await eventually(
      'the change in PostgreSQL',
      async () => (await sql`select name from project where id = 3`)[0].name === 'while away',
    );
    await client.state('connected');
  });
});
