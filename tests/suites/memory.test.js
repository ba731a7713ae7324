// In pages of which size the server takes its memory: small ones, unless it is told otherwise.

import {strict as assert} from 'node:assert';
import {readFileSync} from 'node:fs';
import {platform} from 'node:os';
import {after, before, describe, test} from 'node:test';
import {Cluster} from '../harness/postgres.js';
import {PEER, SyncServer} from '../harness/server.js';
import {modelDatabase} from '../harness/world.js';

describe(
  'memory',
  {skip: (PEER && 'about kelvin') || (platform() !== 'linux' && 'about Linux')},
  () => {
    let cluster;

    before(async () => {
      cluster = await Cluster.start();
      await modelDatabase(cluster, 'model');
    });

    after(() => cluster?.stop());

    for (const [name, env, enabled] of [
      ['does not come in pages of 2 MiB', {}, 0],
      ['may come in them where that is asked for', {ZERO_KELVIN_HUGE_PAGES: 'true'}, 1],
    ]) {
      test(name, async () => {
        const server = new SyncServer(cluster.url('model'), env);
        try {
          await server.start();
          const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
          assert.match(status, new RegExp(`^THP_enabled:\\s+${enabled}$`, 'm'));
        } finally {
          await server.dispose();
        }
      });
    }
  },
);
