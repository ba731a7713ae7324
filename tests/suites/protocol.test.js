// The wire protocol, message by message: all forms of pokes, and what happens to those who send
// nonsense: the documented answer, and nobody else notices.

import {strict as assert} from 'node:assert';
import {randomUUID} from 'node:crypto';
import {after, afterEach, before, describe, test} from 'node:test';
import {CLIENT_SCHEMA, LABELS, ProtocolClient, VERSIONS, handshake} from '../harness/protocol.js';
import {ADMIN_PASSWORD, PEER} from '../harness/server.js';
import {OPCODE, frame} from '../harness/websocket.js';
import {startWorld} from '../harness/world.js';

/** The peer's package knows protocol 51 at most. */
const versions = VERSIONS.filter(v => !PEER || v <= 51);

describe('protocol', () => {
  let world;
  /** @type {ProtocolClient} */
  let witness;
  const open = [];
  const client = options => {
    const c = new ProtocolClient(world.server.port, options);
    open.push(c);
    return c;
  };

  before(async () => {
    world = await startWorld();
    witness = new ProtocolClient(world.server.port);
    await witness.gets('labels');
  });

  afterEach(() => open.splice(0).forEach(c => c.close()));

  after(async () => {
    witness?.close();
    await world?.stop('protocol');
  });

  /** Somebody else's connection is alive and fed. */
  async function othersLive() {
    assert(!witness.socket.ended, 'the connection of somebody else was closed');
    const name = randomUUID();
    await world.sql`update label set name = ${name} where id = 5`;
    await witness.until(
      'a change to arrive',
      () => witness.table('label').get('[5]')?.name === name,
    );
    witness.clean();
  }

  for (const version of versions) {
    test(`version ${version}: rows come, change and go`, async () => {
      const c = client({version});
      await c.gets('labels');
      assert.deepEqual([...c.desired.get(c.clientID)], ['labels']);
      assert.equal(c.table('label').size, 5);
      assert.deepEqual(Object.keys(c.table('label').get('[1]')).sort(), ['colour', 'id', 'name']);
      await world.sql`insert into label values (90, 'new', null)`;
      await c.until('the new row', () => c.table('label').has('[90]'));
      await world.sql`update label set name = 'newer 😀' where id = 90`;
      await c.until('the change', () => c.table('label').get('[90]')?.name === 'newer 😀');
      await world.sql`update label set id = 91 where id = 90`;
      await c.until(
        'the new key',
        () => c.table('label').has('[91]') && !c.table('label').has('[90]'),
      );
      await world.sql`delete from label where id = 91`;
      await c.until('the row to go', () => !c.table('label').has('[91]'));
      c.clean();
    });

    test(`version ${version}: a poke of more than a megabyte`, async () => {
      await world.sql`insert into comment select 'big' || n, 'i001', null, repeat('é', 5000),
        now() from generate_series(1, 300) n`;
      const schema = {
        tables: {
          comment: {columns: {id: {type: 'string'}, body: {type: 'string'}}, primaryKey: ['id']},
        },
      };
      const ast = {
        table: 'comment',
        where: {
          type: 'simple',
          op: 'LIKE',
          left: {type: 'column', name: 'id'},
          right: {type: 'literal', value: 'big%'},
        },
      };
      const c = client({
        version,
        keys: {comment: ['id']},
        init: {desiredQueriesPatch: [{op: 'put', hash: 'big', ast}], clientSchema: schema},
      });
      await c.gets('big');
      await c.until('all rows', () => c.table('comment').size === 300);
      await world.sql`delete from comment where id like 'big%'`;
      await c.until('the rows to go', () => c.table('comment').size === 0);
      c.clean();
    });

    test(`version ${version}: a cookie gets what changed since, and no more`, async () => {
      const a = client({version});
      await a.gets('labels');
      a.close();
      await world.sql`update label set colour = 'teal' where id = 2`;
      await world.sql`insert into label values (80, 'meanwhile', null)`;
      const b = client({
        version,
        params: {clientID: a.clientID, clientGroupID: a.groupID, baseCookie: a.cookie},
        init: {desiredQueriesPatch: [], activeClients: [a.clientID]},
      });
      await b.until(
        'what changed',
        () => b.table('label').has('[80]') && b.table('label').has('[2]'),
      );
      assert.equal(b.table('label').get('[2]').colour, 'teal');
      const unchanged = [...b.table('label').keys()].filter(key =>
        ['[1]', '[3]', '[4]'].includes(key),
      );
      assert.deepEqual(unchanged, []);
      await world.sql`delete from label where id = 80`;
      await b.until('the row to go', () => !b.table('label').has('[80]'));
      b.clean();
    });
  }

  test('an up-to-date reconnect gets one empty poke that keeps the cookie', async () => {
    const a = client();
    await a.gets('labels');
    a.close();
    const b = client({
      params: {clientID: a.clientID, clientGroupID: a.groupID, baseCookie: a.cookie},
      init: {desiredQueriesPatch: [], activeClients: [a.clientID]},
    });
    await b.until('a poke', () => b.pokes > 0);
    assert.equal(b.of('pokePart').length, 0);
    b.clean();
  });

  test('a query with a number beyond 2^53 outlives a reconnect', async () => {
    const beyond = [2 ** 53 + 2, 1e21, -1e21].map((value, at) => ({
      op: 'put',
      hash: `beyond ${at}`,
      ast: {
        table: 'label',
        where: {
          type: 'simple',
          op: '<',
          left: {type: 'column', name: 'id'},
          right: {type: 'literal', value},
        },
      },
    }));
    const a = client({
      init: {
        desiredQueriesPatch: beyond,
        clientSchema: CLIENT_SCHEMA,
      },
    });
    for (const {hash} of beyond) await a.gets(hash);
    const {size} = a.table('label');
    assert(size >= 5, `${size} labels`);
    a.close();
    await world.sql`insert into label values (81, 'beyond', null)`;
    const b = client({
      params: {clientID: a.clientID, clientGroupID: a.groupID, baseCookie: a.cookie},
      init: {desiredQueriesPatch: [], activeClients: [a.clientID]},
    });
    await b.until('what changed', () => b.table('label').has('[81]'));
    await world.sql`delete from label where id = 81`;
    await b.until('the row to go', () => !b.table('label').has('[81]'));
    b.clean();
  });

  test('the server echoes the whole subprotocol and says its connection first', async () => {
    const c = client({params: {wsid: 'a wsid'}});
    await c.until('a message', () => c.messages.length);
    assert.match(c.socket.response.toLowerCase(), /sec-websocket-protocol/);
    assert(c.socket.response.includes(c.protocol), c.socket.response);
    assert.equal(c.messages[0][1].wsid, 'a wsid');
  });

  test('initConnection as a frame', async () => {
    const c = client({init: null});
    await c.until('connected', () => c.of('connected').length);
    c.send('initConnection', {desiredQueriesPatch: [LABELS], clientSchema: CLIENT_SCHEMA});
    await c.gets('labels');
    c.clean();
  });

  test('a ping is answered', async () => {
    const c = client();
    await c.until('connected', () => c.of('connected').length);
    c.send('ping', {});
    await c.until('a pong', () => c.of('pong').length);
  });

  test('queries are added and dropped while connected', async () => {
    const c = client();
    await c.gets('labels');
    const one = {
      op: 'put',
      hash: 'one',
      ttl: 0,
      ast: {
        table: 'issue',
        where: {
          type: 'simple',
          op: '=',
          left: {type: 'column', name: 'id'},
          right: {type: 'literal', value: 'i001'},
        },
      },
    };
    c.send('changeDesiredQueries', {desiredQueriesPatch: [one]});
    await c.gets('one');
    assert.equal(c.table('issue').size, 1);
    c.send('changeDesiredQueries', {desiredQueriesPatch: [{op: 'del', hash: 'one'}]});
    await c.until(
      'the query to be dropped',
      () => !c.got.has('one') && c.table('issue').size === 0,
    );
    assert.deepEqual([...c.desired.get(c.clientID)], ['labels']);
    c.clean();
  });

  test('a second connection of a client takes the place of the first', async () => {
    const a = client();
    await a.gets('labels');
    const b = client({
      params: {clientID: a.clientID, clientGroupID: a.groupID, baseCookie: a.cookie},
      init: {desiredQueriesPatch: []},
    });
    await b.until('a poke', () => b.pokes > 0);
    await a.ended();
    assert.deepEqual(a.of('error'), []);
    b.clean();
  });

  test('a cookie of somebody else is answered by ClientNotFound', async () => {
    for (const baseCookie of PEER ? ['4zzzzz'] : ['4zzzzz', 'zz99', 'nonsense', '00:01', '🍪']) {
      const c = client({params: {baseCookie}, init: {desiredQueriesPatch: [LABELS]}});
      const error = await c.error();
      assert.equal(error.kind, 'ClientNotFound', baseCookie);
      assert.equal(error.origin, 'zeroCache');
      await c.ended();
    }
  });

  test('a schema that does not fit is answered by SchemaVersionNotSupported', async () => {
    const column = type => ({tables: {label: {columns: {id: {type}}, primaryKey: ['id']}}});
    const bad = [
      {tables: {nowhere: {columns: {id: {type: 'string'}}, primaryKey: ['id']}}},
      {
        tables: {
          label: {columns: {id: {type: 'number'}, nope: {type: 'string'}}, primaryKey: ['id']},
        },
      },
      column('string'),
      {
        tables: {
          label: {columns: {id: {type: 'number'}, name: {type: 'string'}}, primaryKey: ['name']},
        },
      },
    ];
    for (const clientSchema of bad) {
      const c = client({init: {desiredQueriesPatch: [], clientSchema}});
      const error = await c.error();
      assert.equal(error.kind, 'SchemaVersionNotSupported', JSON.stringify(clientSchema));
      await c.ended();
    }
    await othersLive();
  });

  test('a group without a schema is answered by InvalidConnectionRequest', async () => {
    const c = client({init: {desiredQueriesPatch: [LABELS]}});
    assert.equal((await c.error()).kind, 'InvalidConnectionRequest');
  });

  for (const version of [29, 1, 0, 1000]) {
    test(`version ${version} is answered by VersionNotSupported`, async () => {
      const c = client({version});
      assert.equal((await c.error()).kind, 'VersionNotSupported');
      await c.ended();
      assert.deepEqual(c.of('connected'), []);
    });
  }

  describe('a bad handshake is closed with 1002', () => {
    const cases = {
      'no clientID': {params: {clientID: undefined}},
      'no clientGroupID': {params: {clientGroupID: undefined}},
      'no ts': {params: {ts: undefined}},
      'no lmid': {params: {lmid: ''}},
      'lmid that is no number': {params: {lmid: 'x'}},
      'no subprotocol': {headers: {'Sec-WebSocket-Protocol': ''}},
      'a subprotocol that is no base64': {headers: {'Sec-WebSocket-Protocol': '%%%'}},
      'a subprotocol that is no JSON': {
        headers: {'Sec-WebSocket-Protocol': encodeURIComponent(btoa('{nope'))},
      },
      'a version that is no number': {
        path: '/sync/vX/connect?clientID=a&clientGroupID=b&ts=1&lmid=0',
      },
    };
    for (const [name, options] of Object.entries(cases)) {
      test(name, async () => {
        const c = client(options);
        await c.ended();
        assert.equal(c.socket.closeCode, 1002, c.socket.response);
        assert(c.socket.closeReason.length > 0 && c.socket.closeReason.length <= 123);
        assert.deepEqual(c.messages, []);
        await othersLive();
      });
    }
  });

  describe('a malformed message is answered by InvalidMessage', () => {
    const patch = op => JSON.stringify(['changeDesiredQueries', {desiredQueriesPatch: [op]}]);
    const mutation = {type: 'custom', id: 1, clientID: 'c', name: 'n', args: [], timestamp: 1};
    const whole = {
      clientGroupID: 'g',
      mutations: [],
      pushVersion: 1,
      timestamp: 1,
      requestID: 'r',
    };
    const push = wrong => JSON.stringify(['push', {...whole, ...wrong}]);
    /** @type {Record<string, string>} */
    const cases = {
      'no JSON': '{',
      'a number': '17',
      'null': 'null',
      'an object': '{"ping": {}}',
      'an empty array': '[]',
      'no body': '["changeDesiredQueries"]',
      'an unknown type': '["hello", {}]',
      'a type that is no string': '[1, {}]',
      'a body of the wrong type': '["changeDesiredQueries", []]',
      'no patch': '["changeDesiredQueries", {}]',
      'a patch that is no array': '["changeDesiredQueries", {"desiredQueriesPatch": {}}]',
      'an operation nobody knows': patch({op: 'zap'}),
      'no hash': patch({op: 'put'}),
      'a hash that is no string': patch({op: 'del', hash: 1}),
      'a ttl that is no number': patch({op: 'put', hash: 'h', ttl: '1'}),
      'mutations that are no array': push({mutations: 1}),
      'a push without a request': push({requestID: undefined}),
      'a mutation of an unknown type': push({mutations: [{...mutation, type: 'x'}]}),
      'a mutation without an id': push({mutations: [{...mutation, id: undefined}]}),
      'updateAuth without auth': '["updateAuth", {}]',
      'deleteClients of the wrong type': '["deleteClients", {"clientIDs": "c"}]',
      'an acknowledgement without an id': '["ackMutationResponses", {"clientID": "c"}]',
      'an inspect without an id': '["inspect", {"op": "version"}]',
    };
    if (PEER)
      cases['an inspect of an unknown operation'] = '["inspect", {"id": "1", "op": "dump"}]';
    // One level deeper than any reader should follow, yet a valid text.
    if (!PEER) cases['an empty text'] = '';
    if (!PEER) cases['JSON of absurd depth'] = '['.repeat(200_000) + ']'.repeat(200_000);
    for (const [name, text] of Object.entries(cases)) {
      test(name, async () => {
        const c = client();
        await c.gets('labels');
        c.raw(text);
        const error = await c.error();
        assert.equal(error.kind, 'InvalidMessage');
        assert.equal(error.origin, 'zeroCache');
        await c.ended();
      });
    }
    test('and others live on', othersLive);
  });

  // The peer closes the connection here. A query that makes no sense is no reason to take the
  // others away, so kelvin answers with an error of that query.
  describe('a malformed query is an error of that query', () => {
    const where = condition => ({table: 'label', where: condition});
    const id = {type: 'column', name: 'id'};
    const one = {type: 'literal', value: 1};
    const cases = {
      'no table': {},
      'a table that is no string': {table: 1},
      'a limit that is no number': {table: 'label', limit: '1'},
      'an order of no direction': {table: 'label', orderBy: [['id']]},
      'an order of a wrong direction': {table: 'label', orderBy: [['id', 'up']]},
      'a start without exclusive': {table: 'label', start: {row: {}}},
      'a condition of no type': where({}),
      'a condition of an unknown type': where({type: 'xor', conditions: []}),
      'an unknown operator': where({type: 'simple', op: '==', left: id, right: one}),
      'a comparison without a right side': where({type: 'simple', op: '=', left: id}),
      'and without conditions': where({type: 'and'}),
      'EXISTS without a correlation': where({
        type: 'correlatedSubquery',
        op: 'EXISTS',
        related: {subquery: {table: 'issue', alias: 'a'}},
      }),
      'a column on the right': where({type: 'simple', op: '=', left: id, right: id}),
      'an empty correlation': {
        table: 'label',
        related: [
          {
            correlation: {parentField: [], childField: []},
            subquery: {table: 'issue', alias: 'a'},
          },
        ],
      },
    };
    for (const [name, ast] of Object.entries(cases)) {
      test(name, async () => {
        const c = client();
        await c.gets('labels');
        c.send('changeDesiredQueries', {desiredQueriesPatch: [{op: 'put', hash: 'x', ast}]});
        if (PEER) {
          assert.equal((await c.error()).kind, 'InvalidMessage');
          return;
        }
        await c.until('an error of the query', () =>
          c
            .of('transformError')
            .flat()
            .some(error => error.id === 'x'),
        );
        c.send('ping', {});
        await c.until('a pong', () => c.of('pong').length);
        assert(!c.got.has('x'));
        c.clean();
      });
    }
    test('and others live on', othersLive);
  });

  describe('what is well formed but cannot be done', () => {
    const push = (c, extra = {}, mutation = {}) =>
      c.send('push', {
        clientGroupID: c.groupID,
        pushVersion: 1,
        timestamp: 1,
        requestID: 'r',
        mutations: [
          {
            type: 'crud',
            id: 1,
            clientID: c.clientID,
            name: '_zero_crud',
            timestamp: 1,
            args: [{ops: []}],
            ...mutation,
          },
        ],
        ...extra,
      });
    const cases = {
      'a push for another group': [c => push(c, {clientGroupID: 'other'}), 'InvalidPush'],
      'a custom mutation without an endpoint': [
        c => push(c, {}, {type: 'custom', name: 'n', args: [null]}),
        'InvalidPush',
      ],
      'a mutation ahead of its turn': [c => push(c, {}, {id: 7}), 'InvalidPush'],
      'a second initConnection': [
        c => c.send('initConnection', {desiredQueriesPatch: []}),
        PEER ? 'Internal' : 'InvalidMessage',
      ],
    };
    for (const [name, [act, kind]] of Object.entries(cases)) {
      test(name, async () => {
        const c = client();
        await c.gets('labels');
        act(c);
        assert.equal((await c.error()).kind, kind);
        await c.ended();
        await othersLive();
      });
    }

    test('a query of a table that is not there leaves others alone', async () => {
      const c = client();
      await c.gets('labels');
      c.send('changeDesiredQueries', {
        desiredQueriesPatch: [{op: 'put', hash: 'nope', ast: {table: 'nowhere'}}],
      });
      await c
        .until(
          'an answer',
          () =>
            c.socket.ended ||
            c.messages.some(([type]) => type === 'transformError' || type === 'error'),
          5000,
        )
        .catch(() => {});
      await othersLive();
    });
  });

  describe('a broken WebSocket frame ends that connection only', () => {
    const text = '["ping", {}]';
    const cases = {
      'an unmasked frame': frame(OPCODE.text, text, {masked: false}),
      'reserved bits': frame(OPCODE.text, text, {reserved: 4}),
      'an unknown opcode': frame(5, text),
      'an unknown control opcode': frame(11, text),
      'a continuation of nothing': frame(OPCODE.continuation, text),
      'a length above 2^53': frame(OPCODE.text, text, {length: 1n << 62n}),
      'a length above the limit': frame(OPCODE.text, text, {length: 1n << 30n}),
      'a fragmented ping': frame(OPCODE.ping, 'x', {fin: false}),
      'a long ping': frame(OPCODE.ping, 'x'.repeat(200)),
      'text that is no UTF-8': frame(OPCODE.text, Buffer.from([0xff, 0xfe, 0xfd])),
      'a bad close code': frame(OPCODE.close, Buffer.from([0, 1])),
      'a binary frame': frame(OPCODE.binary, Buffer.from([0, 1, 2])),
    };
    for (const [name, bytes] of Object.entries(cases)) {
      for (const together of PEER ? [false] : [false, true]) {
        test(`${name}${together ? ', in the packet of the handshake' : ''}`, async () => {
          const c = client(together ? {together: bytes} : {});
          if (!together) {
            await c.until('connected', () => c.of('connected').length);
            c.socket.write(bytes);
          }
          await c.ended();
          await othersLive();
        });
      }
    }

    test('a message in many fragments is one message', async () => {
      const c = client();
      await c.until('connected', () => c.of('connected').length);
      const bytes = [...text].map((letter, i) =>
        frame(i === 0 ? OPCODE.text : OPCODE.continuation, letter, {fin: i === text.length - 1}),
      );
      c.socket.write(Buffer.concat(bytes));
      await c.until('a pong', () => c.of('pong').length);
    });

    test('fragments without an end are not kept for ever', async () => {
      if (PEER) return;
      const c = client();
      await c.until('connected', () => c.of('connected').length);
      const block = Buffer.alloc(1 << 20, 0x20);
      c.socket.write(frame(OPCODE.text, block, {fin: false}));
      for (let i = 0; i < 40 && !c.socket.ended; i += 1) {
        c.socket.write(frame(OPCODE.continuation, block, {fin: false}));
        await new Promise(resolve => setTimeout(resolve, 10));
      }
      await c.ended();
      await othersLive();
    });
  });

  test('a client that does not read delays nobody', async () => {
    const lazy = client();
    await lazy.gets('labels');
    lazy.socket.pause();
    for (let i = 0; i < 20; i += 1) {
      await world.sql`update label set colour = ${`${i}`.repeat(50_000)}`;
    }
    await othersLive();
    lazy.socket.resume();
    await lazy.until(
      'to catch up or be cut',
      () => lazy.socket.ended || lazy.table('label').get('[1]')?.colour?.startsWith('1919'),
    );
    await world.sql`update label set colour = null`;
  });

  test('deleted clients are acknowledged', async () => {
    const a = client();
    await a.gets('labels');
    const b = client({
      params: {clientGroupID: a.groupID, baseCookie: a.cookie},
      init: {desiredQueriesPatch: [LABELS]},
    });
    await b.until('a poke', () => b.pokes > 0);
    a.close();
    b.send('deleteClients', {clientIDs: [a.clientID]});
    await b.until('an acknowledgement', () =>
      b.of('deleteClients').some(body => body.clientIDs.includes(a.clientID)),
    );
    b.clean();
  });

  for (const version of versions) {
    test(`the inspector answers those who know the password, version ${version}`, async () => {
      const c = client({version});
      await c.gets('labels');
      const ask = async (op, more = {}) => {
        const id = randomUUID();
        c.send('inspect', {id, op, ...more});
        const answer = () => c.of('inspect').find(answer => answer.id === id);
        return c.until(`the answer to ${op}`, answer);
      };
      assert.deepEqual((await ask('version')).value, false, 'nothing before the password');
      assert.equal((await ask('authenticate', {value: 'wrong'})).value, false);
      assert.equal((await ask('authenticate', {value: ADMIN_PASSWORD})).value, true);
      assert.equal(typeof (await ask('version')).value, 'string');
      const [query] = (await ask('queries')).value;
      assert.equal(query.queryID, 'labels');
      assert.equal(query.clientID, c.clientID);
      assert.equal(query.got, true);
      assert.equal(query.rowCount, 5);
      const [hydration, update] = [
        version < 51 ? 'query-materialization-server' : 'query-hydration-server-ms',
        'query-update-server',
      ];
      assert.deepEqual(Object.keys(query.metrics).sort(), [hydration, update].sort());
      const took = query.metrics[hydration];
      assert(version < 51 ? took.length === 3 && took[1] > 0 && took[2] === 1 : took > 0);
      assert.equal(query.metrics[update].length % 2, 1);
    });
  }

  test('HTTP: the root and keepalive answer, other paths do not break anything', async () => {
    for (const path of ['/', '/keepalive']) {
      const answer = await fetch(`${world.server.url}${path}`);
      assert.equal(answer.status, 200, path);
    }
    const answer = await fetch(`${world.server.url}/nowhere`);
    assert(answer.status >= 400 && answer.status < 500, `${answer.status}`);
    assert.equal(handshake({}), 'e30%3D');
    await othersLive();
  });
});
