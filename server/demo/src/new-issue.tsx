import {useZero} from '@rocicorp/zero/react';
import {useEffect, useRef, useState} from 'react';
import {useDirectory} from './directory.tsx';
import {PRIORITIES} from './wording.ts';
import {createIssue} from './writes.ts';

type Props = {project: string; onClose: () => void; onCreated: (id: string) => void};

export function NewIssueDialog({project, onClose, onCreated}: Props) {
  const z = useZero();
  const {projects, users, me} = useDirectory();
  const [title, setTitle] = useState('');
  const [body, setBody] = useState('');
  const [projectID, setProject] = useState(project);
  const [priority, setPriority] = useState(0);
  const [assignee, setAssignee] = useState('');
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const chosen = projectID || projects[0]?.id;
  const ready = title.trim() !== '' && chosen !== undefined && me !== undefined;

  const create = () => {
    if (!ready) return;
    onCreated(
      createIssue(z, {
        title: title.trim(),
        body,
        projectID: chosen,
        priority,
        creatorID: me.id,
        assigneeID: assignee || null,
      }),
    );
  };
  return (
    <dialog className="new-issue" ref={dialog} onClose={onClose} data-testid="new-issue-dialog">
      <form
        onSubmit={event => {
          event.preventDefault();
          create();
        }}
      >
        <input
          autoFocus
          data-testid="new-issue-title"
          aria-label="Title"
          placeholder="What is it about?"
          value={title}
          onChange={event => setTitle(event.target.value)}
        />
        <textarea
          data-testid="new-issue-body"
          aria-label="Description"
          placeholder="Description"
          rows={5}
          value={body}
          onChange={event => setBody(event.target.value)}
        />
        <div className="new-issue-line">
          <select
            data-testid="new-issue-project"
            aria-label="Project"
            value={chosen ?? ''}
            onChange={event => setProject(event.target.value)}
          >
            {projects.map(p => (
              <option key={p.id} value={p.id}>
                {p.name}
              </option>
            ))}
          </select>
          <select
            data-testid="new-issue-priority"
            aria-label="Priority"
            value={priority}
            onChange={event => setPriority(Number(event.target.value))}
          >
            {PRIORITIES.map((name, value) => (
              <option key={name} value={value}>
                {name}
              </option>
            ))}
          </select>
          <select
            data-testid="new-issue-assignee"
            aria-label="Assignee"
            value={assignee}
            onChange={event => setAssignee(event.target.value)}
          >
            <option value="">Nobody</option>
            {users.map(user => (
              <option key={user.id} value={user.id}>
                {user.name}
              </option>
            ))}
          </select>
          <span className="grow" />
          <button type="button" className="quiet" data-testid="new-issue-cancel" onClick={onClose}>
            Cancel
          </button>
          <button className="primary" data-testid="new-issue-create" disabled={!ready}>
            Create
          </button>
        </div>
      </form>
    </dialog>
  );
}
