import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { edit, retry } from "./asking.ts";
import type { Answered, Asked, Conversation } from "./conversation.ts";
import { dialog, type Growing, growing, panel, standing, tell } from "./desk.ts";
import { Icon } from "./icons.tsx";
import { type Block, blocks, rendered } from "./prose.ts";
import { Shield } from "./shield.tsx";
import { sentence, shieldName } from "./words.ts";

export const editing = { last: null as null | (() => void) };

async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    tell("Copied");
  } catch {
    tell("The browser did not let the page copy");
  }
}

function Act({
  icon,
  words,
  onClick,
  disabled = false,
}: {
  icon: "copy" | "again" | "edit";
  words: string;
  onClick: () => void;
  disabled?: boolean;
}) {
  return (
    <button type="button" class="icon small-icon" title={words} aria-label={words} onClick={onClick} disabled={disabled}>
      <Icon name={icon} size={15} />
    </button>
  );
}

function BlockView({ block }: { block: Block }) {
  const at = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => at.current?.replaceChildren(rendered(block)), [block.raw]);
  return <div class="block" ref={at} />;
}

function onCodeClick(event: MouseEvent): void {
  const button = (event.target as Element).closest("[data-copy]");
  const code = button?.closest(".code")?.querySelector("pre")?.textContent;
  if (code != null) void copy(code.replace(/\n$/, ""));
}

/** What a model wrote. While it grows, only the blocks that change are made anew. */
export function Prose({ text, live = false }: { text: string; live?: boolean }) {
  const found = useMemo(() => blocks(text), [text]);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents lint/a11y/noStaticElementInteractions: the buttons inside are buttons
    <div class={`prose ${live ? "live" : ""}`} onClick={onCodeClick}>
      {found.map((block, place) => (
        <BlockView key={place} block={block} />
      ))}
    </div>
  );
}

export function AskedTurn({ turn, last, busy }: { turn: Asked; last: boolean; busy: boolean }) {
  const [text, setText] = useState<string | null>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const closed = standing.value.at !== "open";
  useEffect(() => {
    if (last) editing.last = () => setText(turn.text);
  }, [last, turn.text]);
  const began = text !== null;
  useEffect(() => {
    if (!began) return;
    field.current?.focus();
    field.current?.setSelectionRange(turn.text.length, turn.text.length);
  }, [began, turn.text.length]);
  const send = () => {
    if (text?.trim()) edit(turn.id, text);
    setText(null);
  };
  if (text !== null) {
    return (
      <li class="turn asked">
        <div class="edit">
          <textarea
            ref={field}
            class="input"
            aria-label="Edit your message"
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
                event.preventDefault();
                send();
              } else if (event.key === "Escape") {
                event.stopPropagation();
                setText(null);
              }
            }}
          />
          <div>
            <button type="button" class="button slight" onClick={() => setText(null)}>
              Cancel
            </button>
            <button type="button" class="button slight first" disabled={!text.trim() || closed} onClick={send}>
              Send instead
            </button>
          </div>
        </div>
      </li>
    );
  }
  return (
    <li class="turn asked">
      <h2 class="unseen">You</h2>
      <div class="bubble" dir="auto">
        {turn.text}
      </div>
      <div class="turn-foot">
        <div class="turn-acts">
          <Act icon="copy" words="Copy your message" onClick={() => void copy(turn.text)} />
          <Act icon="edit" words="Edit and ask again" disabled={busy} onClick={() => setText(turn.text)} />
        </div>
      </div>
    </li>
  );
}

function Trouble({ turn }: { turn: Answered }) {
  const { proof, trouble } = turn;
  if (proof?.shield === "red") {
    return (
      <div class="trouble">
        <Icon name="cross" />
        <p class="what">Do not rely on this answer. It is left out of what you send next.</p>
        <p>{sentence(proof.line)}</p>
      </div>
    );
  }
  if (trouble === null) return null;
  const needsKey = /no_credential|HTTP 401/.test(`${trouble.code} ${trouble.message}`);
  return (
    <div class="trouble">
      <Icon name="cross" />
      <p class="what">{sentence(trouble.message)}</p>
      {trouble.hint && <p>{sentence(trouble.hint)}</p>}
      {trouble.code && <p class="code mono">{trouble.code}</p>}
      <div class="acts">
        {needsKey && (
          <button type="button" class="button slight" onClick={() => (dialog.value = "apikey")}>
            Enter an API key
          </button>
        )}
        <button type="button" class="button slight" disabled={standing.value.at !== "open"} onClick={() => retry(turn.id)}>
          Ask again
        </button>
      </div>
    </div>
  );
}

function showProof(turn: Answered): void {
  if (turn.proof) panel.value = { title: "This answer", proof: turn.proof };
}

function said(turn: Answered): string {
  const parts = [turn.model];
  if (turn.usage) parts.push(`${turn.usage.completion.toLocaleString("en")} tokens`);
  if (turn.seconds > 0 && turn.state === "whole") parts.push(`${turn.seconds.toFixed(1)} s`);
  return parts.join(" · ");
}

const EMPTY: Record<Answered["state"], string> = {
  whole: "The answer is empty.",
  failed: "There is no answer.",
  stopped: "Stopped before the first word.",
  growing: "This answer is being written in another tab.",
};

export function AnsweredTurn({ turn, last, grows }: { turn: Answered; last: boolean; grows: Growing | null }) {
  const text = grows ? grows.text.value : turn.text;
  const examining = grows?.examining.value ?? false;
  const colour = turn.proof?.shield ?? "open";
  return (
    <li class={`turn answered ${last ? "last" : ""}`} aria-busy={grows !== null}>
      <h2 class="unseen">{turn.model}</h2>
      {text ? <Prose text={text} live={grows !== null && !examining} /> : null}
      {grows !== null && !text && (
        <div class="thinking" role="img" aria-label="Waiting for the first word">
          <i />
          <i />
          <i />
        </div>
      )}
      {grows === null && !text && turn.trouble === null && <p class="quiet">{EMPTY[turn.state]}</p>}

      {grows === null && turn.finish === "length" && (
        <p class="quiet small">Cut at the room's limit on the length of answers.</p>
      )}
      {grows === null && <Trouble turn={turn} />}
      <div class="turn-foot">
        {grows !== null ? (
          text && <Shield colour="busy" text={examining ? "Verifying the receipt" : "Verified when complete"} disabled />
        ) : turn.proof ? (
          <Shield
            colour={colour}
            text={
              colour === "open" && turn.state === "stopped" ? "Stopped, not examined" : shieldName(colour, turn.proof.label)
            }
            onClick={() => showProof(turn)}
          />
        ) : null}
        {grows === null && (
          <div class="turn-acts">
            {text && <Act icon="copy" words="Copy the answer" onClick={() => void copy(turn.text)} />}
            {(turn.trouble === null || turn.proof?.shield === "red") && (
              <Act
                icon="again"
                words="Ask again for this answer"
                disabled={standing.value.at !== "open"}
                onClick={() => retry(turn.id)}
              />
            )}
          </div>
        )}
        {grows === null && <span class="turn-said cut">{said(turn)}</span>}
      </div>
    </li>
  );
}

export function Turns({ one }: { one: Conversation }) {
  const grows = growing.value.get(one.id) ?? null;
  const lastAsked = one.turns.findLast((turn) => turn.role === "user")?.id;
  return (
    <ol class="column turns">
      {one.turns.map((turn, place) =>
        turn.role === "user" ? (
          <AskedTurn key={turn.id} turn={turn} last={turn.id === lastAsked} busy={grows !== null} />
        ) : (
          <AnsweredTurn
            key={turn.id}
            turn={turn}
            last={place === one.turns.length - 1}
            grows={grows?.turn === turn.id ? grows : null}
          />
        ),
      )}
    </ol>
  );
}
