/** Asks the page's own server where kelvin is, then renders the app on it. */
import {ZeroProvider} from '@rocicorp/zero/react';
import {StrictMode} from 'react';
import {createRoot} from 'react-dom/client';
import {App} from './app.tsx';
import {schema} from './schema.ts';
import './styles/base.css';
import './styles/layout.css';
import './styles/list.css';
import './styles/detail.css';

type Config = {
  /** Base address of the sync server. */
  server: string;
  /** Names this demo database, so that the browser never mixes the data of two of them. */
  database?: string;
};

async function loadConfig(): Promise<Config> {
  const response = await fetch('/config.json', {cache: 'no-store'});
  if (!response.ok) throw new Error(`/config.json answered ${response.status}`);
  const config = (await response.json()) as Partial<Config>;
  if (typeof config.server !== 'string') throw new Error('/config.json names no server');
  return {server: config.server, ...(config.database ? {database: config.database} : {})};
}

async function start() {
  const element = document.getElementById('root');
  if (!element) return;
  const root = createRoot(element);
  try {
    const {server, database} = await loadConfig();
    root.render(
      <StrictMode>
        <ZeroProvider schema={schema} cacheURL={server} storageKey={database ?? 'demo'}>
          <App />
        </ZeroProvider>
      </StrictMode>,
    );
  } catch (error) {
    root.render(
      <main className="fatal" data-testid="fatal">
        <h1>The demo does not answer</h1>
        <p>{error instanceof Error ? error.message : String(error)}</p>
        <p>
          Start it with <code>kelvin demo</code>, then reload this page.
        </p>
      </main>,
    );
  }
}

void start();
