/** The page: sidebar, list, detail panel, status bar, and the keys that move between them. */
import {useZero} from '@rocicorp/zero/react';
import {useCallback, useEffect, useRef, useState} from 'react';
import {Detail} from './detail.tsx';
import {DirectoryProvider} from './directory.tsx';
import {locationHref, readLocation, type Filters, type Location} from './filters.ts';
import {IssueList} from './issue-list.tsx';
import {NewIssueDialog} from './new-issue.tsx';
import {Sidebar} from './sidebar.tsx';
import {StatusBar, type ListFacts} from './status-bar.tsx';
import {Toolbar} from './toolbar.tsx';
import {useKeys} from './use-keys.ts';
import {editIssue} from './writes.ts';

export function App() {
  return (
    <DirectoryProvider>
      <Page />
    </DirectoryProvider>
  );
}

const NO_FACTS: ListFacts = {shown: 0, complete: false, answeredMs: undefined, changes: 0};

function Page() {
  const z = useZero();
  const [location, go] = useLocation();
  const [creating, setCreating] = useState(false);
  const [facts, setFacts] = useState(NO_FACTS);
  const [order, setOrder] = useState<readonly {id: string; state: string}[]>([]);
  const search = useRef<HTMLInputElement>(null);
  const {filters, issue} = location;

  const setFilters = useCallback(
    (change: Partial<Filters>) => go(l => ({...l, filters: {...l.filters, ...change}})),
    [go],
  );
  const open = useCallback((id: string | undefined) => go(l => ({...l, issue: id})), [go]);
  const close = useCallback(() => open(undefined), [open]);

  const move = (by: number) => {
    const at = order.findIndex(row => row.id === issue);
    const next = order[at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by))];
    if (next) open(next.id);
  };
  useKeys({
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    '/': () => search.current?.focus(),
    c: () => setCreating(true),
    e: () => {
      const row = order.find(r => r.id === issue);
      if (row) editIssue(z, row.id, {state: row.state === 'open' ? 'closed' : 'open'});
    },
    Escape: () => (creating ? setCreating(false) : close()),
  });

  return (
    <div className="page" data-detail={issue !== undefined}>
      <Sidebar filters={filters} onFilters={setFilters} onOpen={open} />
      <main className="main">
        <Toolbar
          filters={filters}
          onFilters={setFilters}
          onNew={() => setCreating(true)}
          searchRef={search}
        />
        <IssueList
          filters={filters}
          selected={issue}
          onOpen={open}
          onFacts={setFacts}
          onOrder={setOrder}
        />
        <StatusBar facts={facts} />
      </main>
      {issue !== undefined && <Detail key={issue} id={issue} onClose={close} />}
      {creating && (
        <NewIssueDialog
          project={filters.project}
          onClose={() => setCreating(false)}
          onCreated={id => {
            setCreating(false);
            open(id);
          }}
        />
      )}
    </div>
  );
}

/** The address as state. Opening an issue makes a step in the history, a filter does not. */
function useLocation() {
  const [location, setLocation] = useState(readLocation);
  useEffect(() => {
    const onPop = () => setLocation(readLocation());
    window.addEventListener('popstate', onPop);
    return () => window.removeEventListener('popstate', onPop);
  }, []);
  useEffect(() => {
    const href = locationHref(location);
    const old = readLocation();
    if (href === window.location.pathname + window.location.search) return;
    const opens = location.issue !== old.issue && old.issue === undefined;
    if (opens) window.history.pushState(null, '', href);
    else window.history.replaceState(null, '', href);
  }, [location]);
  return [location, setLocation as (step: (l: Location) => Location) => void] as const;
}
