/** Priority, assignee and labels of an issue. */
import {useZero} from '@rocicorp/zero/react';
import {useState} from 'react';
import {useDirectory} from './directory.tsx';
import {Avatar, Dot, PriorityIcon} from './marks.tsx';
import type {IssueDetail} from './queries.ts';
import {byName, PRIORITIES} from './wording.ts';
import {editIssue, setLabel} from './writes.ts';

export function Fields({issue}: {issue: IssueDetail}) {
  const z = useZero();
  const {users} = useDirectory();
  return (
    <dl className="fields">
      <dt>Priority</dt>
      <dd>
        <PriorityIcon priority={issue.priority} />
        <select
          data-testid="detail-priority"
          aria-label="Priority"
          value={issue.priority}
          onChange={event => editIssue(z, issue.id, {priority: Number(event.target.value)})}
        >
          {PRIORITIES.map((name, priority) => (
            <option key={name} value={priority}>
              {name}
            </option>
          ))}
        </select>
      </dd>
      <dt>Assignee</dt>
      <dd>
        <Avatar user={issue.assignee} />
        <select
          data-testid="detail-assignee"
          aria-label="Assignee"
          value={issue.assigneeID ?? ''}
          onChange={event => editIssue(z, issue.id, {assigneeID: event.target.value || null})}
        >
          <option value="">Nobody</option>
          {users.map(user => (
            <option key={user.id} value={user.id}>
              {user.name}
            </option>
          ))}
        </select>
      </dd>
      <dt>Labels</dt>
      <dd>
        <Labels issue={issue} />
      </dd>
    </dl>
  );
}

function Labels({issue}: {issue: IssueDetail}) {
  const z = useZero();
  const {labels} = useDirectory();
  const [choosing, setChoosing] = useState(false);
  const on = new Set(issue.labels.map(label => label.id));
  return (
    <div className="labels">
      {byName(issue.labels).map(label => (
        <span className="chip" key={label.id} data-testid="detail-label" data-id={label.id}>
          <Dot color={label.color} />
          {label.name}
          <button
            data-testid="label-remove"
            aria-label={`Remove ${label.name}`}
            onClick={() => setLabel(z, issue.id, label.id, false)}
          >
            ×
          </button>
        </span>
      ))}
      <button
        className="chip add"
        data-testid="label-add"
        aria-expanded={choosing}
        onClick={() => setChoosing(!choosing)}
      >
        {choosing ? 'Done' : '+ Label'}
      </button>
      {choosing && (
        <div className="label-menu" data-testid="label-menu">
          {labels.map(label => (
            <label key={label.id}>
              <input
                type="checkbox"
                data-testid="label-option"
                data-id={label.id}
                checked={on.has(label.id)}
                onChange={event => setLabel(z, issue.id, label.id, event.target.checked)}
              />
              <Dot color={label.color} />
              {label.name}
            </label>
          ))}
        </div>
      )}
    </div>
  );
}
