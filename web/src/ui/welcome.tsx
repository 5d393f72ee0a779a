import { useRef, useState } from "preact/hooks";
import { shield } from "../verify/index.ts";
import { config, impossible, type Offer, offer, pinned } from "./desk.ts";
import { unlock } from "./entering.ts";
import { Icon, Mark, ShieldIcon } from "./icons.tsx";
import { accept, consider, keepPinned } from "./trusting.ts";
import { conditions, date } from "./words.ts";

function Brand() {
  return (
    <span class="brand">
      <Mark size={22} /> Strongroom
    </span>
  );
}

const PROMISES: [string, string][] = [
  [
    "The hardware's evidence, for a number that this page drew.",
    "Who signs it, what program it measured, and that it is fresh.",
  ],
  ["The keys.", "They are bound into that evidence; nobody else holds them."],
  ["The contract.", "Its signatures, and that it is the one you pin below: which model, which policy."],
  ["The encryption.", "Your message is encrypted in this page to the verified key, and only a matching answer decrypts."],
  ["The receipt.", "Each answer has one; its hashes are compared with the bytes that this page sent and received."],
];

function Server() {
  return config.value.servedBy === "proxy" ? (
    <p class="quiet small">This page comes from the proxy on your own machine; the host that answers cannot change it.</p>
  ) : (
    <p class="quiet small">
      This page comes from the very host that it verifies, and is only as honest as that host: a dishonest one could serve a
      page that shows green for anything. To be independent of it, run <code>strongroom proxy</code> on your own machine and
      open the page there.
    </p>
  );
}

function Found({ one }: { one: Offer }) {
  const result = one.found?.result ?? null;
  if (one.trouble !== null) {
    return (
      <div class="notice red" role="alert">
        <ShieldIcon colour="red" size={20} />
        <h2>Nothing is sent to this room</h2>
        <p>{one.trouble.line}</p>
        <p class="quiet">{one.trouble.todo}</p>
        <p class="small quiet mono">{one.trouble.code}</p>
      </div>
    );
  }
  const colour = one.found && shield(one.found, null) === "green" ? "green" : "amber";
  const simulated = result?.platform === "simulated";
  const passed = result?.checks.filter((check) => check.status === "passed").length ?? 0;
  return (
    <div class={`notice ${colour}`}>
      <ShieldIcon colour={colour} size={20} />
      <h2>{simulated ? "Simulated: no hardware protects this room" : "The room's evidence fits"}</h2>
      <p>
        {simulated
          ? "All checks run as they would on real hardware, but whoever owns this machine can read what you write. Good for trying it out; not for secrets from that person."
          : `${result?.label ?? ""}. ${passed} checks of the hardware's evidence passed in this page.`}
      </p>
    </div>
  );
}

function Facts({ one }: { one: Offer }) {
  const facts = one.found?.facts;
  if (!facts) return null;
  const changed = pinned.value !== null && pinned.value.contract !== facts.contract;
  return (
    <>
      <section>
        <h2>Who may see what</h2>
        <dl class="facts">
          {conditions(facts).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      </section>
      <section>
        <h2>The contract</h2>
        {changed && (
          <div class="notice amber">
            <ShieldIcon colour="amber" size={20} />
            <h3>Another contract than the one that you pinned</h3>
            <p class="mono small">{pinned.value?.contract}</p>
          </div>
        )}
        <dl class="facts">
          <div>
            <dt>Title</dt>
            <dd>{facts.title}</dd>
          </div>
          <div>
            <dt>Models</dt>
            <dd>{facts.models.map((one) => one.name).join(", ")}</dd>
          </div>
          <div>
            <dt>Signed by</dt>
            <dd>{facts.parties.join(", ")}</dd>
          </div>
          <div>
            <dt>In force until</dt>
            <dd>{date(facts.notAfter)}</dd>
          </div>
          <div>
            <dt>Digest</dt>
            <dd>
              <span class="mono">{facts.contract}</span>
            </dd>
          </div>
        </dl>
      </section>
    </>
  );
}

function Trust({ one }: { one: Offer }) {
  return (
    <section>
      <h2>What you would trust</h2>
      <p class="quiet small">
        From {one.from || "a file"}. Compare these with what somebody you trust told you. Once pinned they stay in this
        browser; a room that no longer fits is refused, whatever its host says.
      </p>
      <ul class="facts small trust-lines">
        {one.described.map((text) => (
          <li key={text} class="break">
            {text}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Before the first message: what will be verified, who may see what, and what is to be trusted. */
export function Welcome() {
  const file = useRef<HTMLInputElement>(null);
  const now = offer.value;
  const one = now === "looking" ? null : now;
  const pick = async () => {
    const chosen = file.current?.files?.[0];
    if (chosen) await consider(await chosen.text(), `the file ${chosen.name}`);
  };
  const ready = one !== null && one.trouble === null && one.found?.facts != null;
  return (
    <div class="page">
      <main class="sheet">
        <header>
          <Brand />
          <h1>{pinned.value ? "What you trust" : "Before your first message"}</h1>
          <p class="lead">
            You are about to talk to a model in a room at{" "}
            <span class="break">{(config.value.room || location.host).replace(/^https?:\/\//, "")}</span>. This page believes
            nothing that it has not checked itself.
          </p>
        </header>
        {now === "looking" && (
          <div class="notice" role="status">
            <ShieldIcon colour="busy" size={20} />
            <p>Verifying the room. Only a random number has been sent.</p>
          </div>
        )}
        {one && <Found one={one} />}
        {one && <Facts one={one} />}
        <section>
          <h2>What this page checks, every time</h2>
          <ol class="promise">
            {PROMISES.map(([what, how]) => (
              <li key={what}>
                <div>
                  <strong>{what}</strong> <span>{how}</span>
                </div>
              </li>
            ))}
          </ol>
          <Server />
        </section>
        {one && one.described.length > 0 && <Trust one={one} />}
        {now === null && (
          <section>
            <h2>What do you trust?</h2>
            <p class="quiet">
              Import a trust document (trust.json): which roots, measurements and parties you accept. Somebody you trust
              gives it to you, or strongroom party trust writes it.
            </p>
          </section>
        )}
        <section>
          <p class="quiet small">Conversations stay in this browser, encrypted. You can set a passphrase in the settings.</p>
          <div class="acts">
            {(one !== null || now === "looking") && (
              <button type="button" class="button first" disabled={!ready} onClick={() => void accept()}>
                {ready && one?.found?.result?.platform === "simulated" ? "Pin this and try it" : "Pin this and begin"}
              </button>
            )}
            <button type="button" class={`button ${now === null ? "first" : ""}`} onClick={() => file.current?.click()}>
              Import a trust document
            </button>
            <input
              ref={file}
              class="unseen"
              type="file"
              accept="application/json,.json"
              tabIndex={-1}
              aria-label="Trust document"
              onChange={() => void pick()}
            />
            {one?.trouble && (
              <button type="button" class="button" onClick={() => void consider(one.trust, one.from)}>
                Verify again
              </button>
            )}
            {pinned.value && (
              <button type="button" class="button" onClick={() => void keepPinned()}>
                Keep what is pinned
              </button>
            )}
          </div>
        </section>
      </main>
    </div>
  );
}

export function Locked() {
  const field = useRef<HTMLInputElement>(null);
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await unlock(field.current?.value ?? "");
    } catch {
      setWrong("That is not the passphrase.");
      field.current?.select();
    }
    setBusy(false);
  };
  return (
    <div class="page">
      <main class="sheet narrow">
        <header>
          <Brand />
          <h1>Locked</h1>
          <p class="lead">Your conversations are encrypted under your passphrase.</p>
        </header>
        <form class="field" onSubmit={(event) => void submit(event)}>
          <label for="unlock">Passphrase</label>
          <input
            id="unlock"
            ref={field}
            class="input"
            type="password"
            autocomplete="current-password"
            autofocus
            aria-describedby="wrong"
          />
          <p id="wrong" class="small" role="alert">
            {wrong}
          </p>
          <div>
            <button type="submit" class="button first" disabled={busy}>
              <Icon name="lock" size={15} /> Unlock
            </button>
          </div>
        </form>
      </main>
    </div>
  );
}

export function Impossible() {
  return (
    <div class="page">
      <main class="sheet narrow">
        <header>
          <Brand />
          <h1>This does not work here</h1>
          <p class="lead">{impossible.value}</p>
        </header>
      </main>
    </div>
  );
}
