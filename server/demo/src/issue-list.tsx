/** The list: a growing window over the ordered issues, of which only the visible rows are in the DOM. */
import {useQuery, useZero} from '@rocicorp/zero/react';
import {useVirtualizer} from '@tanstack/react-virtual';
import {useEffect, useRef, useState} from 'react';
import type {Filters} from './filters.ts';
import {IssueRowView} from './issue-row.tsx';
import {issueList} from './queries.ts';
import type {ListFacts} from './status-bar.tsx';
import {useAnchor} from './use-anchor.ts';
import {useChanges} from './use-changes.ts';
import {useTick} from './use-tick.ts';

/** Rows asked for at first and with every step further down. */
const STEP = 100;
/** The list ends here; whoever wants more has a search field. */
const MAX_ROWS = 5_000;
const ROW_HEIGHT = 44;
/** Ages of rows are brought up to date this often. */
const TICK_MS = 10_000;

type Props = {
  filters: Filters;
  selected: string | undefined;
  onOpen: (id: string) => void;
  onFacts: (facts: ListFacts) => void;
  onOrder: (rows: readonly {id: string; state: string}[]) => void;
};

export function IssueList({filters, selected, onOpen, onFacts, onOrder}: Props) {
  const z = useZero();
  const [limit, setLimit] = useLimit(filters);
  const [rows, {type}] = useQuery(issueList(z, filters, limit), {ttl: '1m'});
  const complete = type === 'complete';
  const {marked, count} = useChanges(rows);
  const answeredMs = useAnswerTime(`${JSON.stringify(filters)}:${limit}`, complete);
  const hasMore = rows.length >= limit && limit < MAX_ROWS;
  const more = () => setLimit(Math.min(MAX_ROWS, limit + STEP * (limit >= 500 ? 5 : 1)));

  useEffect(() => onOrder(rows), [rows, onOrder]);
  useEffect(() => {
    onFacts({shown: rows.length, complete, answeredMs, changes: count});
  }, [rows.length, complete, answeredMs, count, onFacts]);

  const tick = useTick(TICK_MS);
  const scroller = useRef<HTMLDivElement>(null);
  const [atTop, setAtTop] = useState(true);
  useAnchor(scroller, rows, ROW_HEIGHT);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_HEIGHT,
    getItemKey: index => rows[index]?.id ?? index,
    overscan: 12,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (hasMore && complete && last >= rows.length - 20) more();
  });
  useEffect(() => {
    const at = rows.findIndex(row => row.id === selected);
    if (at >= 0) virtual.scrollToIndex(at, {align: 'auto'});
    // Follows the selection, not the rows: a live change must not move the page.
  }, [selected]);

  return (
    <div
      className="list"
      ref={scroller}
      data-testid="issue-list"
      data-complete={complete}
      data-at-top={atTop}
      onScroll={event => setAtTop(event.currentTarget.scrollTop < ROW_HEIGHT)}
    >
      <div role="list" style={{height: virtual.getTotalSize(), position: 'relative'}}>
        {items.map(item => {
          const row = rows[item.index];
          return row ? (
            <IssueRowView
              key={row.id}
              row={row}
              top={item.start}
              changed={marked.has(row.id)}
              selected={row.id === selected}
              by={filters.sort}
              tick={tick}
              onOpen={onOpen}
            />
          ) : null;
        })}
      </div>
      {rows.length === 0 && <Empty complete={complete} />}
      {hasMore && (
        <button className="more" data-testid="load-more" onClick={more}>
          Load more
        </button>
      )}
    </div>
  );
}

function Empty({complete}: {complete: boolean}) {
  if (!complete) {
    return (
      <div className="skeleton" data-testid="list-loading" aria-label="Loading">
        {Array.from({length: 14}, (_, i) => (
          <div key={i} style={{opacity: 1 - i / 15}} />
        ))}
      </div>
    );
  }
  return (
    <div className="empty" data-testid="list-empty">
      <strong>No issues here</strong>
      <span>Change the filters, or press C to write one.</span>
    </div>
  );
}

/** A window that starts over whenever the filters change. */
function useLimit(filters: Filters): [number, (limit: number) => void] {
  const key = JSON.stringify(filters);
  const [state, setState] = useState({key, limit: STEP});
  const limit = state.key === key ? state.limit : STEP;
  return [limit, (next: number) => setState({key, limit: next})];
}

/** Milliseconds from asking a query to its complete answer. */
function useAnswerTime(key: string, complete: boolean): number | undefined {
  const asked = useRef({key: '', at: 0});
  const [time, setTime] = useState<number>();
  if (asked.current.key !== key) asked.current = {key, at: performance.now()};
  useEffect(() => {
    if (complete) setTime(Math.max(1, Math.round(performance.now() - asked.current.at)));
  }, [complete, key]);
  return time;
}
