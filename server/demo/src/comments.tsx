import {useZero} from '@rocicorp/zero/react';
import {useState} from 'react';
import {useDirectory} from './directory.tsx';
import {Avatar} from './marks.tsx';
import type {IssueDetail} from './queries.ts';
import {ago} from './wording.ts';
import {addComment} from './writes.ts';

export function Comments({issue, complete}: {issue: IssueDetail; complete: boolean}) {
  return (
    <section className="comments" aria-label="Comments">
      <h3>
        Comments <span data-testid="comment-count">{issue.comments.length}</span>
      </h3>
      {issue.comments.map(comment => (
        <div className="comment" key={comment.id} data-testid="comment" data-id={comment.id}>
          <Avatar user={comment.author} large />
          <div>
            <p className="comment-head">
              <b data-testid="comment-author">{comment.author?.name ?? 'Someone'}</b>
              <time title={new Date(comment.created).toLocaleString()}>{ago(comment.created)}</time>
            </p>
            <p className="comment-body" data-testid="comment-body">
              {comment.body}
            </p>
          </div>
        </div>
      ))}
      {issue.comments.length === 0 && (
        <p className="comment-none">{complete ? 'Nobody has said anything yet.' : 'Loading…'}</p>
      )}
      <CommentBox issueID={issue.id} />
    </section>
  );
}

function CommentBox({issueID}: {issueID: string}) {
  const z = useZero();
  const {me} = useDirectory();
  const [text, setText] = useState('');
  const send = () => {
    const body = text.trim();
    if (!body || !me) return;
    addComment(z, issueID, me.id, body);
    setText('');
  };
  return (
    <form
      className="comment-box"
      onSubmit={event => {
        event.preventDefault();
        send();
      }}
    >
      <Avatar user={me} large />
      <textarea
        data-testid="comment-input"
        aria-label="New comment"
        placeholder="Write a comment"
        rows={2}
        value={text}
        onChange={event => setText(event.target.value)}
        onKeyDown={event => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
            event.preventDefault();
            send();
          }
        }}
      />
      <button className="primary" data-testid="comment-submit" disabled={!text.trim() || !me}>
        Comment
      </button>
    </form>
  );
}
