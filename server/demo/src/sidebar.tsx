/** Projects, live activity, and who is acting. */
import {useQuery, useZero} from '@rocicorp/zero/react';
import {useDirectory} from './directory.tsx';
import type {Filters} from './filters.ts';
import {Avatar, Dot} from './marks.tsx';
import {activity} from './queries.ts';
import {ThemeButton} from './theme.tsx';
import {useTick} from './use-tick.ts';
import {ago, givenName, issueKey} from './wording.ts';

type Props = {
  filters: Filters;
  onFilters: (change: Partial<Filters>) => void;
  onOpen: (id: string) => void;
};

export function Sidebar({filters, onFilters, onOpen}: Props) {
  const {projects, users, me, setMe} = useDirectory();
  return (
    <aside className="sidebar">
      <header className="brand">
        <svg viewBox="0 0 32 32" aria-hidden>
          <rect width="32" height="32" rx="9" />
          <path d="M11 8v16M21 8l-8 8 8 8" />
        </svg>
        <strong>kelvin</strong>
        <span>demo</span>
        <ThemeButton />
      </header>
      <nav className="projects" aria-label="Projects">
        <h2>Projects</h2>
        <button
          aria-pressed={filters.project === ''}
          data-testid="project-all"
          onClick={() => onFilters({project: ''})}
        >
          <Dot color="var(--faint)" />
          All projects
        </button>
        {projects.map(project => (
          <button
            key={project.id}
            aria-pressed={filters.project === project.id}
            data-testid="project-item"
            data-id={project.id}
            onClick={() => onFilters({project: project.id})}
          >
            <Dot color={project.color} />
            {project.name}
            <kbd>{project.key}</kbd>
          </button>
        ))}
      </nav>
      <Activity onOpen={onOpen} />
      <label className="me">
        <Avatar user={me} />
        <select
          data-testid="acting-user"
          aria-label="Acting as"
          value={me?.id ?? ''}
          onChange={event => setMe(event.target.value)}
        >
          {users.map(user => (
            <option key={user.id} value={user.id}>
              {user.name}
            </option>
          ))}
        </select>
      </label>
    </aside>
  );
}

function Activity({onOpen}: {onOpen: (id: string) => void}) {
  const z = useZero();
  const [comments] = useQuery(activity(z));
  useTick(10_000);
  return (
    <section className="activity" data-testid="activity" aria-label="Latest comments">
      <h2>
        <span className="pulse" /> Happening now
      </h2>
      {comments.map(comment => (
        <button
          key={comment.id}
          data-testid="activity-item"
          data-id={comment.id}
          onClick={() => onOpen(comment.issueID)}
        >
          <Avatar user={comment.author} />
          <span className="activity-text">
            <b>{givenName(comment.author)}</b> on{' '}
            <b>{issueKey(comment.issue?.project, comment.issue?.number)}</b>
            <i>{ago(comment.created)}</i>
            <em>{comment.body}</em>
          </span>
        </button>
      ))}
    </section>
  );
}
