// Serves a folder of files, and `/config.json` from memory: the page of the demo without the demo.

import {readFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import {extname, join, normalize} from 'node:path';

const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
};

/** Starts serving on a free port. Paths that are no file get the page itself. */
export async function serveFolder(folder, config) {
  const index = await readFile(join(folder, 'index.html'));
  const server = createServer(async (request, response) => {
    const {pathname} = new URL(request.url, 'http://page');
    if (pathname === '/config.json') {
      response.writeHead(200, {'content-type': 'application/json'});
      response.end(JSON.stringify(config));
      return;
    }
    const body = await readFile(join(folder, normalize(pathname))).catch(() => index);
    const type = body === index ? 'text/html' : TYPES[extname(pathname)];
    response.writeHead(200, {'content-type': type ?? 'application/octet-stream'});
    response.end(body);
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const {port} = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    stop() {
      server.closeAllConnections();
      return new Promise(resolve => server.close(resolve));
    },
  };
}
