// A whole world for a suite: PostgreSQL with a database, the app's endpoint, a sync server.

import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {openPermissions, schema} from '../model/schema.js';
import {seed} from '../model/seed.js';
import {startApi} from './api.js';
import {TESTS} from './paths.js';
import {Cluster} from './postgres.js';
import {SyncServer} from './server.js';

/** Stores compiled permissions where a sync server reads them, as `zero-deploy-permissions`. */
export async function deployPermissions(sql, permissions, app = 'zero') {
  await sql.unsafe(`create schema if not exists ${app}`);
  await sql.unsafe(`create table if not exists ${app}.permissions (
    permissions jsonb, hash text, lock bool primary key default true check (lock))`);
  await sql.unsafe(`create or replace function ${app}.set_permissions_hash() returns trigger as $$
    begin new.hash = md5(new.permissions::text); return new; end $$ language plpgsql`);
  await sql.unsafe(`create or replace trigger on_set_permissions before insert or update
    on ${app}.permissions for each row execute function ${app}.set_permissions_hash()`);
  await sql.unsafe(
    `insert into ${app}.permissions (permissions) values ($1)
    on conflict (lock) do update set permissions = excluded.permissions`,
    [permissions],
  );
}

/** Publication of all tables of the model, of which one is outside `public`. */
export const PUBLICATION = 'everything';

/** Creates a database with the tables, rows, publication and permissions of the model. */
export async function modelDatabase(cluster, name, permissions = undefined) {
  const sql = await cluster.createDatabase(name);
  await sql.unsafe(readFileSync(join(TESTS, 'model/schema.sql'), 'utf8'));
  await seed(sql);
  await sql.unsafe(`create publication ${PUBLICATION} for tables in schema public, crm`);
  await deployPermissions(sql, permissions ?? (await openPermissions(schema)));
  return sql;
}

/**
 * Starts PostgreSQL with the model's database, the app's endpoint if there is an app, and a sync
 * server.
 * @param {object} [options]
 * @param {Record<string, string>} [options.env] further variables of the sync server
 * @param {unknown} [options.permissions] compiled permissions instead of open ones
 * @param {Omit<Parameters<typeof startApi>[0], 'sql'>} [options.app]
 * @param {string} [options.tables] SQL that makes further tables
 */
export async function startWorld({env = {}, permissions, app, tables} = {}) {
  const cluster = await Cluster.start();
  const sql = await modelDatabase(cluster, 'model', permissions);
  if (tables) await sql.unsafe(tables);
  const api = app && (await startApi({sql, ...app}));
  const server = new SyncServer(cluster.url('model'), {
    ZERO_APP_PUBLICATIONS: PUBLICATION,
    ...api?.env,
    ...env,
  });
  const world = {
    cluster,
    sql,
    server,
    api,
    /** Ends everything; with a label the server's log is kept among the artifacts. */
    async stop(label) {
      await server.dispose(label);
      await api?.stop();
      await cluster.stop();
    },
  };
  await server.start().catch(async error => {
    await world.stop('failed-start');
    throw error;
  });
  return world;
}
