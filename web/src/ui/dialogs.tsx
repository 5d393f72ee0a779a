import { useRef, useState } from "preact/hooks";
import { asMarkdown } from "./conversation.ts";
import { apiKey, conversations, dialog, pinned, protectedBy, shown, tell } from "./desk.ts";
import { download } from "./evidence.ts";
import { Icon } from "./icons.tsx";
import { eraseAll, remove, rename, setApiKey, setPassphrase } from "./keeping.ts";
import { Modal } from "./modal.tsx";
import { SHORTCUTS } from "./shortcuts.ts";
import { type Choice, choice } from "./theme.ts";
import { review } from "./trusting.ts";
import { date } from "./words.ts";

const close = () => {
  dialog.value = null;
};

function fileName(title: string): string {
  return (
    title
      .replace(/[^\p{L}\p{N} -]/gu, "")
      .trim()
      .slice(0, 48) || "conversation"
  );
}

function ConversationDialog() {
  const one = shown();
  const [title, setTitle] = useState(one?.title ?? "");
  const [sure, setSure] = useState(false);
  if (one === null) return null;
  return (
    <Modal title="This conversation" onClose={close}>
      <form
        class="field"
        onSubmit={(event) => {
          event.preventDefault();
          rename(one.id, title);
          close();
        }}
      >
        <label for="title">Name</label>
        <input
          id="title"
          class="input"
          value={title}
          maxLength={120}
          onInput={(event) => setTitle(event.currentTarget.value)}
        />
      </form>
      <div class="field">
        <span class="quiet small">An export leaves this browser's encryption: keep it where others cannot read it.</span>
        <div class="acts">
          <button
            type="button"
            class="button"
            onClick={() => download(`${fileName(one.title)}.md`, "text/markdown", asMarkdown(one))}
          >
            <Icon name="save" size={14} /> Markdown
          </button>
          <button
            type="button"
            class="button"
            onClick={() => download(`${fileName(one.title)}.json`, "application/json", `${JSON.stringify(one, null, 2)}\n`)}
          >
            <Icon name="save" size={14} /> JSON with all checks
          </button>
        </div>
      </div>
      <div class="acts">
        {sure ? (
          <>
            <button type="button" class="button" onClick={() => setSure(false)}>
              Keep it
            </button>
            <button
              type="button"
              class="button danger"
              onClick={() => {
                close();
                void remove(one.id);
              }}
            >
              Delete for good
            </button>
          </>
        ) : (
          <>
            <button type="button" class="button danger" onClick={() => setSure(true)}>
              <Icon name="bin" size={14} /> Delete
            </button>
            <button
              type="button"
              class="button first"
              onClick={() => {
                rename(one.id, title);
                close();
              }}
            >
              Done
            </button>
          </>
        )}
      </div>
    </Modal>
  );
}

function KeysDialog() {
  return (
    <Modal title="Keyboard" onClose={close}>
      <div class="keys">
        {SHORTCUTS.map(({ keys, words }) => [
          <span key={words}>{words}</span>,
          <span key={keys.join()}>{keys.map((key, place) => [place > 0 ? " " : null, <kbd key={key}>{key}</kbd>])}</span>,
        ])}
      </div>
    </Modal>
  );
}

function ApiKeyField() {
  const field = useRef<HTMLInputElement>(null);
  return (
    <form
      class="field"
      onSubmit={(event) => {
        event.preventDefault();
        void setApiKey(field.current?.value ?? "").then(() =>
          tell(apiKey.value ? "API key kept, encrypted" : "API key removed"),
        );
        if (dialog.value === "apikey") close();
      }}
    >
      <label for="apikey">API key</label>
      <input
        id="apikey"
        ref={field}
        class="input mono"
        type="password"
        autocomplete="off"
        spellcheck={false}
        placeholder="sr-…"
        defaultValue={apiKey.value}
      />
      <span class="quiet small">
        From the room's operator, where the room asks for one. It says who pays, and goes along with every message; the
        operator can see it.
      </span>
      <div>
        <button type="submit" class="button slight">
          Keep the key
        </button>
      </div>
    </form>
  );
}

function Passphrase() {
  const field = useRef<HTMLInputElement>(null);
  const [busy, setBusy] = useState(false);
  const set = async (passphrase: string | null) => {
    setBusy(true);
    await setPassphrase(passphrase);
    if (field.current) field.current.value = "";
    setBusy(false);
  };
  return (
    <form
      class="field"
      onSubmit={(event) => {
        event.preventDefault();
        const typed = field.current?.value ?? "";
        if (typed.length >= 10) void set(typed);
        else tell("A passphrase has ten characters or more");
      }}
    >
      <label for="passphrase">Passphrase</label>
      <span class="quiet small">
        {protectedBy.value
          ? "Set. Without it nobody who has only this disk can read your conversations, and neither can you: nobody can reset it."
          : "Not set. Conversations are encrypted under a key that this browser keeps beside them: a copy of single files tells nothing, but who can use this browser profile can read them. A passphrase closes that, while the page is closed."}
      </span>
      <input
        id="passphrase"
        ref={field}
        class="input"
        type="password"
        autocomplete="new-password"
        aria-label={protectedBy.value ? "New passphrase" : "Passphrase"}
        placeholder={protectedBy.value ? "A new passphrase" : "Ten characters or more"}
      />
      <div class="acts">
        <button type="submit" class="button slight" disabled={busy}>
          {protectedBy.value ? "Change" : "Set passphrase"}
        </button>
        {protectedBy.value && (
          <button type="button" class="button slight" disabled={busy} onClick={() => void set(null)}>
            Remove
          </button>
        )}
      </div>
    </form>
  );
}

function Settings() {
  const [sure, setSure] = useState(false);
  const exportAll = () =>
    download("conversations.json", "application/json", `${JSON.stringify(conversations.value, null, 2)}\n`);
  const themes: [Choice, string][] = [
    ["system", "As the system"],
    ["light", "Light"],
    ["dark", "Dark"],
  ];
  return (
    <Modal title="Settings" onClose={close}>
      <div class="settings">
        <section>
          <h3 id="look">Look</h3>
          <div class="choice" role="radiogroup" aria-labelledby="look">
            {themes.map(([value, words]) => (
              <label key={value}>
                <input type="radio" name="theme" checked={choice.value === value} onChange={() => (choice.value = value)} />
                <span>{words}</span>
              </label>
            ))}
          </div>
        </section>
        <section>
          <h3>What you trust</h3>
          <p class="quiet small break">
            {pinned.value
              ? `Pinned ${date(pinned.value.at)}, ${pinned.value.from}. Contract ${pinned.value.contract}.`
              : "Nothing yet."}
          </p>
          <div class="acts">
            <button type="button" class="button slight" onClick={() => void review()}>
              Review or change
            </button>
            {pinned.value && (
              <button
                type="button"
                class="button slight"
                onClick={() => download("trust.json", "application/json", pinned.value?.trust ?? "")}
              >
                <Icon name="save" size={14} /> Trust document
              </button>
            )}
          </div>
        </section>
        <section>
          <ApiKeyField />
        </section>
        <section>
          <Passphrase />
        </section>
        <section>
          <h3>Your conversations</h3>
          <div class="acts">
            <button type="button" class="button slight" disabled={conversations.value.length === 0} onClick={exportAll}>
              <Icon name="save" size={14} /> Export all
            </button>
            {sure ? (
              <button type="button" class="button slight danger" onClick={() => void eraseAll()}>
                Yes, erase everything on this page
              </button>
            ) : (
              <button type="button" class="button slight danger" onClick={() => setSure(true)}>
                <Icon name="bin" size={14} /> Erase everything
              </button>
            )}
          </div>
        </section>
      </div>
    </Modal>
  );
}

export function Dialogs() {
  switch (dialog.value) {
    case "settings":
      return <Settings />;
    case "keys":
      return <KeysDialog />;
    case "conversation":
      return <ConversationDialog />;
    case "apikey":
      return (
        <Modal title="API key" onClose={close}>
          <ApiKeyField />
        </Modal>
      );
    default:
      return null;
  }
}
