// The app's own endpoint: transforms named queries and runs custom mutators, with the official
// server package.

import {createServer} from 'node:http';
import {handleMutateRequest, handleQueryRequest} from '@rocicorp/zero/server';
import {zeroPostgresJS} from '@rocicorp/zero/server/adapters/postgresjs';
import {schema} from '../model/schema.js';

/**
 * Starts the endpoint on a free port.
 * @param {object} app
 * @param {import('postgres').Sql} app.sql where mutators run
 * @param {Record<string, (args: any, context: any) => any>} [app.queries] by name
 * @param {Record<string, (tx: any, args: any, context: any) => Promise<void>>} [app.mutators]
 * @param {(request: import('node:http').IncomingMessage, body: any) => any} [app.intercept]
 *   may answer a request itself: `{status, body}`, or `undefined` to go on
 * @param {(headers: import('node:http').IncomingHttpHeaders) => string | null | undefined}
 *   [app.user] who is asking; `u1` by default, as the clients of the tests
 */
export async function startApi({sql, queries = {}, mutators = {}, intercept, user = () => 'u1'}) {
  const database = zeroPostgresJS(schema, sql);
  /** Every request that came in. */
  const requests = [];

  const answer = async (request, body) => {
    const url = new URL(request.url, 'http://app');
    requests.push({path: url.pathname, params: url.searchParams, headers: request.headers, body});
    const own = await intercept?.(request, body);
    if (own) return own;
    const userID = user(request.headers);
    const query = url.searchParams;
    if (url.pathname === '/query') {
      const handler = (name, args) => {
        if (!queries[name]) throw new Error(`no query ${name}`);
        return queries[name](args, {userID});
      };
      const result = await handleQueryRequest({
        schema,
        query,
        body,
        userID,
        handler,
        logLevel: 'error',
      });
      return {status: 200, body: result};
    }
    const handler = transact =>
      transact(async (tx, name, args) => {
        if (!mutators[name]) throw new Error(`no mutator ${name}`);
        await mutators[name](tx, args, {userID});
      });
    const result = await handleMutateRequest({
      dbProvider: database,
      query,
      body,
      userID,
      handler,
      logLevel: 'error',
    });
    return {status: 200, body: result};
  };

  const server = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const {status, body} = await answer(request, JSON.parse(text || 'null')).catch(error => ({
      status: 500,
      body: {error: String(error?.stack ?? error)},
    }));
    response.writeHead(status, {'content-type': 'application/json'});
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const {port} = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    /** Environment of a sync server that uses this endpoint. */
    env: {
      ZERO_QUERY_URL: `http://127.0.0.1:${port}/query`,
      ZERO_MUTATE_URL: `http://127.0.0.1:${port}/mutate`,
    },
    stop() {
      server.closeAllConnections();
      return new Promise(resolve => server.close(resolve));
    },
  };
}
