/** The small tables every part of the page needs, subscribed to once, and who is acting. */
import {useQuery, useZero} from '@rocicorp/zero/react';
import {createContext, useContext, useMemo, useState, type ReactNode} from 'react';
import {labels, projects, users} from './queries.ts';
import type {Label, Project, User} from './schema.ts';

type Directory = {
  users: readonly User[];
  projects: readonly Project[];
  labels: readonly Label[];
  /** The user this tab writes as. */
  me: User | undefined;
  setMe: (id: string) => void;
};

const EMPTY: Directory = {users: [], projects: [], labels: [], me: undefined, setMe: () => {}};
const DirectoryContext = createContext<Directory>(EMPTY);
const ME_KEY = 'kelvin-demo-me';

export function DirectoryProvider({children}: {children: ReactNode}) {
  const z = useZero();
  const [userRows] = useQuery(users(z));
  const [projectRows] = useQuery(projects(z));
  const [labelRows] = useQuery(labels(z));
  const [meID, setMeID] = useState(() => localStorage.getItem(ME_KEY) ?? '');
  const value = useMemo(
    () => ({
      users: userRows,
      projects: projectRows,
      labels: labelRows,
      me: userRows.find(u => u.id === meID) ?? userRows[0],
      setMe: (id: string) => {
        localStorage.setItem(ME_KEY, id);
        setMeID(id);
      },
    }),
    [userRows, projectRows, labelRows, meID],
  );
  return <DirectoryContext value={value}>{children}</DirectoryContext>;
}

export const useDirectory = () => useContext(DirectoryContext);
