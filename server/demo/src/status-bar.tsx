/** Is the page live, how much does it show, how fast was the answer. */
import {useConnectionState, useZero} from '@rocicorp/zero/react';

export type ListFacts = {
  shown: number;
  complete: boolean;
  answeredMs: number | undefined;
  changes: number;
};

const WORDS: Readonly<Record<string, string>> = {
  connected: 'Live',
  connecting: 'Connecting…',
  disconnected: 'Offline, showing what this browser holds',
  error: 'Stopped by an error',
  'needs-auth': 'Sign-in needed',
  closed: 'Closed',
};

export function StatusBar({facts}: {facts: ListFacts}) {
  const z = useZero();
  const connection = useConnectionState();
  const reason = 'reason' in connection ? connection.reason : undefined;
  return (
    <footer className="status" data-testid="status" data-state={connection.name}>
      <span className="status-dot" />
      <span data-testid="connection" title={typeof reason === 'string' ? reason : undefined}>
        {WORDS[connection.name] ?? connection.name}
      </span>
      {connection.name === 'error' && (
        <button data-testid="reconnect" onClick={() => void z.connection.connect()}>
          Reconnect
        </button>
      )}
      <span className="status-fact" data-testid="row-count" data-value={facts.shown}>
        <b>{facts.shown.toLocaleString()}</b> rows {facts.complete ? 'in view' : 'so far'}
      </span>
      {facts.answeredMs !== undefined && (
        <span className="status-fact" data-testid="query-time" data-value={facts.answeredMs}>
          answered in <b>{facts.answeredMs.toLocaleString()} ms</b>
        </span>
      )}
      <span className="status-fact" data-testid="change-count" data-value={facts.changes}>
        <b>{facts.changes.toLocaleString()}</b> live changes
      </span>
      <span className="status-keys">
        <kbd>J</kbd>
        <kbd>K</kbd> move <kbd>E</kbd> close <kbd>C</kbd> new <kbd>Esc</kbd> back
      </span>
    </footer>
  );
}
