import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ask, stop } from "./asking.ts";
import {
  announced,
  conversations,
  current,
  dialog,
  type Growing,
  growing,
  model,
  models,
  railOpen,
  shown,
  standing,
} from "./desk.ts";
import { Icon } from "./icons.tsx";
import { RoomShield } from "./shield.tsx";
import { open, review, showRoom } from "./trusting.ts";
import { editing, Turns } from "./turns.tsx";

/** The conversation that is shown, and where to write. */
export function Stage() {
  const one = conversations.value.find((c) => c.id === current.value) ?? null;
  return (
    <main class="stage" id="stage">
      <header class="bar">
        <button
          type="button"
          class="icon only-phone"
          aria-label="Conversations"
          aria-expanded={railOpen.value}
          aria-controls="rail"
          onClick={() => (railOpen.value = true)}
        >
          <Icon name="menu" size={18} />
        </button>
        <h1 class="cut">{one?.title ?? "New conversation"}</h1>
        <ModelChoice />
        <RoomShield />
        {one && (
          <button
            type="button"
            class="icon"
            title="Export or delete"
            aria-label="Export or delete this conversation"
            aria-haspopup="dialog"
            onClick={() => (dialog.value = "conversation")}
          >
            <Icon name="more" size={18} />
          </button>
        )}
      </header>
      <Thread />
    </main>
  );
}

function ModelChoice() {
  const names = models();
  if (names.length === 0) return null;
  return (
    <span class="pick">
      <select
        class="select"
        aria-label="Model"
        value={model.value}
        disabled={names.length === 1}
        onChange={(event) => (model.value = event.currentTarget.value)}
      >
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
      <Icon name="pick" size={14} />
    </span>
  );
}

const NEAR = 80; // pixels from the end that still count as being there

function Thread() {
  const one = shown();
  const at = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const [away, setAway] = useState(false);
  const stick = useRef(true);
  const grows = growing.value.get(one?.id ?? "") ?? null;
  const toEnd = () => at.current?.scrollTo({ top: at.current.scrollHeight });
  useLayoutEffect(() => {
    stick.current = true;
    toEnd();
  }, [one?.id, one?.turns.length, grows?.turn]);
  useSpoken(grows);
  useEffect(() => {
    const box = at.current;
    if (!box) return;
    const sizes = new ResizeObserver(() => stick.current && toEnd()); // also when the box for writing grows
    sizes.observe(box);
    if (inner.current) sizes.observe(inner.current);
    return () => sizes.disconnect();
  }, []);
  const onScroll = () => {
    const box = at.current;
    if (!box) return;
    stick.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    setAway(!stick.current);
  };
  return (
    <>
      <div class="thread" ref={at} onScroll={onScroll} role="log" aria-live="off" aria-label="Conversation" tabIndex={-1}>
        <div class="inner" ref={inner}>
          {one && one.turns.length > 0 ? <Turns one={one} /> : <Empty />}
        </div>
      </div>
      <div class="composer">
        <div class="column foot">
          {away && (
            <button type="button" class="down" aria-label="To the end of the conversation" onClick={toEnd}>
              <Icon name="down" />
            </button>
          )}
          <Composer />
        </div>
      </div>
    </>
  );
}

/** Says a growing answer paragraph by paragraph to who listens: word by word nobody could follow. */
function useSpoken(grows: Growing | null): void {
  useEffect(() => {
    if (grows === null) return;
    let said = 0;
    return grows.text.subscribe((text) => {
      const end = text.lastIndexOf("\n\n");
      if (end <= said) return;
      announced.value = text.slice(said, end).trim();
      said = end;
    });
  }, [grows]);
}

function Empty() {
  const now = standing.value;
  const simulated = now.at === "open" && now.found.result?.platform === "simulated";
  const sealed = now.at === "open" && !simulated;
  return (
    <div class="column empty">
      <h2>What is on your mind?</h2>
      <p>
        {sealed &&
          "What you write is encrypted in this page and read only inside a room whose hardware proved what it runs."}
        {simulated &&
          "What you write is encrypted in this page and read only inside the room. The room is simulated: whoever owns its machine can look inside."}
        {now.at !== "open" && "Nothing is sent before this page has verified the room."} Every answer carries a shield; a
        click shows what was checked.
      </p>
    </div>
  );
}

function Composer() {
  const now = standing.value;
  if (now.at === "refused") {
    return (
      <div class="stop-line" role="alert">
        <Icon name="cross" size={18} />
        <div class="says">
          <strong>Nothing is sent.</strong> {now.trouble.line} <span class="quiet">{now.trouble.todo}</span>
        </div>
        <div class="acts">
          <button type="button" class="button slight" onClick={showRoom}>
            See the checks
          </button>
          {/^(?:contract\.|inference\.other_contract|attest\.|party\.)/.test(now.trouble.code) && (
            <button type="button" class="button slight" onClick={review}>
              Review what you trust
            </button>
          )}
          <button type="button" class="button slight first" onClick={open}>
            Verify again
          </button>
        </div>
      </div>
    );
  }
  if (now.at === "unreachable") {
    return (
      <div class="stop-line" role="alert">
        <div class="says">
          <strong>{now.trouble.line}</strong> <span class="quiet">{now.trouble.todo}</span>
        </div>
        <button type="button" class="button slight first" onClick={open}>
          Try again
        </button>
      </div>
    );
  }
  return <Box ready={now.at === "open"} />;
}

const drafts = new Map<string, string>();

function Box({ ready }: { ready: boolean }) {
  const id = current.value ?? "";
  const [text, setText] = useState("");
  const [waiting, setWaiting] = useState(false); // to be sent as soon as the room is verified
  const field = useRef<HTMLTextAreaElement>(null);
  const busy = growing.value.has(id);
  useEffect(() => {
    setText(drafts.get(id) ?? "");
    setWaiting(false);
    field.current?.focus({ preventScroll: true });
  }, [id]);
  const write = (value: string) => {
    drafts.set(id, value);
    setText(value);
    setWaiting(false);
  };
  const send = () => {
    if (busy || text.trim() === "") return;
    if (!ready) {
      setWaiting(true);
      return;
    }
    write("");
    ask(text);
  };
  useEffect(() => {
    if (ready && waiting) send();
  }, [ready, waiting]);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text === "" && editing.last && shown() && !busy) {
      event.preventDefault();
      editing.last();
    }
  };
  return (
    <>
      <form
        class="box"
        onSubmit={(event) => {
          event.preventDefault();
          send();
        }}
      >
        <textarea
          ref={field}
          id="message"
          rows={Math.min(text.split("\n").length, 10)}
          placeholder={ready ? "Write a message" : "Write a message; it is sent once the room is verified"}
          aria-label="Message"
          aria-describedby="hint"
          value={text}
          dir="auto"
          onInput={(event) => write(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        {busy ? (
          <button type="button" class="send" aria-label="Stop" title="Stop (Escape)" onClick={stop}>
            <svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">
              <rect x="2" y="2" width="10" height="10" rx="2.5" fill="currentColor" />
            </svg>
          </button>
        ) : (
          <button type="submit" class="send" aria-label="Send" title="Send (Enter)" disabled={text.trim() === "" || waiting}>
            <Icon name="up" size={18} weight={1.8} />
          </button>
        )}
      </form>
      <p class="under" id="hint">
        {waiting
          ? "Sent as soon as the room is verified."
          : "A shield says who answered, and how well guarded. Not that the answer is right."}
      </p>
    </>
  );
}
