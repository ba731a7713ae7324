// What PostgreSQL says a query's answer is.

import {zeroPostgresJS} from '@rocicorp/zero/server/adapters/postgresjs';
import {schema} from '../model/schema.js';

/** Answers ZQL by compiling it to one SQL statement, as the official server package does. */
export function oracle(sql, of = schema) {
  const database = zeroPostgresJS(of, sql);
  return query => database.run(query);
}
