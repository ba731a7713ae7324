// A whole world for a suite: PostgreSQL with a database, the app's endpoint, a sync server.

import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {openPermissions, schema} from '../model/schema.js';
import {seed} from '../model/seed.js';
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
  await sql.unsafe(`insert into ${app}.permissions (permissions) values ($1)
    on conflict (lock) do update set permissions = excluded.permissions`, [permissions]);
}

/** Creates a database with the tables, rows and permissions of the model. */
export async function modelDatabase(cluster, name, permissions = undefined) {
  const sql = await cluster.createDatabase(name);
  await sql.unsafe(readFileSync(join(TESTS, 'model/schema.sql'), 'utf8'));
  await seed(sql);
  await deployPermissions(sql, permissions ?? (await openPermissions(schema)));
  return sql;
}

/**
 * Starts PostgreSQL with the model's database and a sync server on it.
 * @param {{env?: Record<string, string>, permissions?: unknown,
 *   publications?: string}} [options]
 */
export async function startWorld({env = {}, permissions} = {}) {
  const cluster = await Cluster.start();
  const database = 'model';
  const sql = await modelDatabase(cluster, database, permissions);
  await sql`create publication everything for table crm.organisation, "user", project, milestone,
    issue, comment, label, issue_label, reaction, marker with (publish_via_partition_root = true)`;
  const server = new SyncServer(cluster.url(database), {
    ZERO_APP_PUBLICATIONS: 'everything',
    ...env,
  });
  await server.start();
  return {
    cluster, sql, server, database,
    async stop(label) {
      await server.dispose(label);
      await cluster.stop();
    },
  };
}
