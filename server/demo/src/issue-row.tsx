import {memo} from 'react';
import {Avatar, Chip, PriorityIcon, StateIcon} from './marks.tsx';
import type {Sort} from './filters.ts';
import type {IssueRow} from './queries.ts';
import {ago, byName, issueKey} from './wording.ts';

type Props = {
  row: IssueRow;
  top: number;
  changed: boolean;
  selected: boolean;
  by: Sort;
  /** Changes when the age has to be shown anew. */
  tick: number;
  onOpen: (id: string) => void;
};

export const IssueRowView = memo(function IssueRowView(props: Props) {
  const {row, top, changed, selected, by, onOpen} = props;
  const time = by === 'created' ? row.created : row.modified;
  return (
    <div
      role="listitem"
      className="row"
      data-testid="issue-row"
      data-id={row.id}
      data-state={row.state}
      data-changed={changed}
      aria-current={selected}
      style={{transform: `translateY(${top}px)`}}
      onClick={() => onOpen(row.id)}
    >
      <PriorityIcon priority={row.priority} />
      <span className="row-key" data-testid="issue-row-key">
        {issueKey(row.project, row.number)}
      </span>
      <StateIcon state={row.state} />
      <a
        className="row-title"
        data-testid="issue-row-title"
        href={`/issue/${encodeURIComponent(row.id)}`}
        onClick={event => event.preventDefault()}
      >
        {row.title}
      </a>
      <span className="row-labels">
        {byName(row.labels).slice(0, 3).map(label => (
          <Chip key={label.id} name={label.name} color={label.color} />
        ))}
      </span>
      {(row.commentCount ?? 0) > 0 && (
        <span className="row-comments" title="Comments" data-testid="issue-row-comments">
          <svg viewBox="0 0 16 16" aria-hidden>
            <path d="M2.5 3.5h11v7.5H7.2L4.5 13.3V11h-2z" />
          </svg>
          {row.commentCount}
        </span>
      )}
      <Avatar user={row.assignee} />
      <time className="row-time" title={new Date(time).toLocaleString()}>
        {ago(time)}
      </time>
    </div>
  );
});
