/** Files that a person pastes or drops: those of folders, too. */

/** For choosers: some systems do not count all of these as pictures. */
export const ACCEPTED = "image/*,.avif,.heic,.heif";

/** What it is called; null for a picture without a name, such as one that was copied from a page. */
export function fileName(file: Blob): string | null {
  return file instanceof File ? file.webkitRelativePath || file.name || null : null;
}

/** All files of a paste or a drop, in their order; of folders those that are not hidden, by name. */
export async function filesIn(data: DataTransfer): Promise<File[]> {
  // Read at once: the browser empties what was dropped when the event has returned.
  const files = [...data.files];
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry());
  if (!entries.some((entry) => entry?.isDirectory)) return files;
  const found = await Promise.all(entries.map((entry) => (entry ? filesBelow(entry) : Promise.resolve([]))));
  return found.flat();
}

async function filesBelow(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const inside: FileSystemEntry[] = [];
  // A reader gives a hundred at a time, and none at its end.
  for (;;) {
    const more = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (more.length === 0) break;
    inside.push(...more);
  }
  const visible = inside.filter(({ name }) => !name.startsWith(".")).sort((a, b) => a.name.localeCompare(b.name));
  return (await Promise.all(visible.map(filesBelow))).flat();
}
