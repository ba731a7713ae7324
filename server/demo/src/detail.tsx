/** The panel of one issue: every field can be edited in place and is saved at once. */
import {useQuery, useZero} from '@rocicorp/zero/react';
import {Comments} from './comments.tsx';
import {DraftField} from './draft-field.tsx';
import {Fields} from './fields.tsx';
import {Avatar, Dot} from './marks.tsx';
import {issueDetail, type IssueDetail} from './queries.ts';
import {useTick} from './use-tick.ts';
import {issueKey, since} from './wording.ts';
import {editIssue} from './writes.ts';

type Props = {id: string; onClose: () => void};

export function Detail({id, onClose}: Props) {
  const z = useZero();
  const [issue, {type}] = useQuery(issueDetail(z, id), {ttl: '1m'});
  useTick(10_000);
  return (
    <article
      className="detail"
      data-testid="detail"
      data-id={id}
      data-complete={type === 'complete'}
      aria-label="Issue"
    >
      {issue ? (
        <Body issue={issue} complete={type === 'complete'} onClose={onClose} />
      ) : (
        <div className="empty" data-testid="detail-empty">
          <strong>{type === 'complete' ? 'This issue does not exist' : 'Loading…'}</strong>
          <button className="quiet" onClick={onClose}>
            Back
          </button>
        </div>
      )}
    </article>
  );
}

function Body({issue, complete, onClose}: {issue: IssueDetail; complete: boolean; onClose: () => void}) {
  const z = useZero();
  const closed = issue.state === 'closed';
  return (
    <>
      <header className="detail-head">
        <Dot color={issue.project?.color ?? 'var(--faint)'} />
        <span data-testid="detail-project">{issue.project?.name}</span>
        <span className="detail-key" data-testid="detail-key">
          {issueKey(issue.project, issue.number)}
        </span>
        <button
          className={closed ? 'quiet' : 'finish'}
          data-testid="detail-toggle-state"
          data-state={issue.state}
          onClick={() => editIssue(z, issue.id, {state: closed ? 'open' : 'closed'})}
        >
          {closed ? 'Reopen' : 'Close issue'}
        </button>
        <button className="icon-button" data-testid="detail-close" aria-label="Back" onClick={onClose}>
          <svg viewBox="0 0 16 16" aria-hidden>
            <path d="M4 4l8 8M12 4l-8 8" />
          </svg>
        </button>
      </header>
      <div className="detail-scroll">
        <DraftField
          className="detail-title"
          testid="detail-title"
          label="Title"
          value={issue.title}
          required
          onSave={title => editIssue(z, issue.id, {title})}
        />
        <p className="byline">
          <Avatar user={issue.creator} />
          <span>
            <b>{issue.creator?.name ?? 'Someone'}</b> opened this {since(issue.created)}, changed{' '}
            <time data-testid="detail-modified">{since(issue.modified)}</time>
          </span>
        </p>
        <Fields issue={issue} />
        <DraftField
          className="detail-body"
          testid="detail-body"
          label="Description"
          placeholder="Add a description"
          value={issue.body}
          multiline
          onSave={body => editIssue(z, issue.id, {body})}
        />
        <Comments issue={issue} complete={complete} />
      </div>
    </>
  );
}
