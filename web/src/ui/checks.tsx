import type { Check, FileRef, Proof } from "./conversation.ts";
import { panel, tell, theVault } from "./desk.ts";
import { bundled, download, opened } from "./evidence.ts";
import { Icon, type IconName, ShieldIcon } from "./icons.tsx";
import { Modal } from "./modal.tsx";
import { date, meaning, shieldName, size } from "./words.ts";

const MARKS: Record<Check["status"], { icon: IconName; kind: string }> = {
  passed: { icon: "tick", kind: "passed" },
  failed: { icon: "cross", kind: "failed" },
  "not established": { icon: "question", kind: "open" },
};

function CheckRow({ check }: { check: Check }) {
  const { icon, kind } = MARKS[check.status];
  const row = (
    <>
      <span class="mark">
        <Icon name={icon} size={15} weight={1.8} />
      </span>
      <span class="number">{check.number}</span>
      <span>{check.name}</span>
      <span class="ended">{check.status}</span>
    </>
  );
  const detail = [check.detail, check.status === "passed" ? "" : check.code].filter(Boolean);
  if (detail.length === 0) {
    return (
      <li class={`check ${kind}`} data-check={check.number} data-status={check.status}>
        <div class="check-row">{row}</div>
      </li>
    );
  }
  return (
    <li class={`check ${kind}`} data-check={check.number} data-status={check.status}>
      <details open={check.status === "failed"}>
        <summary class="check-row">{row}</summary>
        <div class="detail">
          {check.detail}
          {check.status !== "passed" && check.code && (
            <>
              {check.detail && <br />}
              <span class="mono">{check.code}</span>
            </>
          )}
        </div>
      </details>
    </li>
  );
}

function Section({ title, checks }: { title: string; checks: readonly Check[] }) {
  const passed = checks.filter((check) => check.status === "passed").length;
  return (
    <section>
      <h3>
        {title} <span>{`${passed} of ${checks.length} passed`}</span>
      </h3>
      <ol class="checks">
        {checks.map((check) => (
          <CheckRow key={check.number} check={check} />
        ))}
      </ol>
    </section>
  );
}

/** What did not pass, before everything else; a check that was not reached says nothing new. */
function Failures({ proof }: { proof: Proof }) {
  const failed = proof.sections.flatMap((section) => section.checks.filter((check) => check.status === "failed"));
  if (failed.length === 0) return null;
  return (
    <section>
      <h3>What failed</h3>
      <ol class="checks">
        {failed.map((check) => (
          <CheckRow key={check.number} check={check} />
        ))}
      </ol>
    </section>
  );
}

async function fetchFile(ref: FileRef): Promise<void> {
  const content = await opened(theVault(), ref);
  if (content) download(ref.name, ref.media, content);
  else tell("This file is no longer kept");
}

function Files({ proof }: { proof: Proof }) {
  const all = async () => download("evidence.json", "application/json", await bundled(theVault(), proof));
  if (proof.files.length === 0) return null;
  return (
    <section>
      <h3>
        Evidence <span>kept in this browser, encrypted</span>
      </h3>
      <ul class="files">
        {proof.files.map((ref) => (
          <li key={ref.name}>
            <div>
              <div class="mono">{ref.name}</div>
              <div class="said">
                {ref.what} · {size(ref.bytes)}
              </div>
            </div>
            <button
              type="button"
              class="button slight"
              aria-label={`Download ${ref.name}`}
              onClick={() => void fetchFile(ref)}
            >
              <Icon name="save" size={14} /> Download
            </button>
          </li>
        ))}
      </ul>
      <div>
        <button type="button" class="button slight" onClick={() => void all()}>
          <Icon name="save" size={14} /> Everything in one file
        </button>
      </div>
    </section>
  );
}

/** The numbered checks behind a shield, and the evidence to take away. */
export function ChecksPanel() {
  const now = panel.value;
  if (now === null) return null;
  const { proof } = now;
  const kind = proof.shield === "open" ? "" : proof.shield;
  return (
    <Modal kind="panel" title={`Checks: ${now.title.toLowerCase()}`} onClose={() => (panel.value = null)}>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, also by keyboard */}
      <div class="panel-body" tabIndex={0}>
        <div class={`notice ${kind}`}>
          <ShieldIcon colour={proof.shield} size={20} />
          <h2>{proof.shield === "green" ? "Verified by this page" : shieldName(proof.shield, proof.label)}</h2>
          <p>{meaning(proof.shield, proof.label)}</p>
          {proof.shield !== "green" && proof.line && proof.line !== proof.label && <p class="break">{proof.line}</p>}
          {proof.label && <p class="small quiet">{proof.label}</p>}
          <p class="small quiet">{`Examined ${date(proof.at)}`}</p>
        </div>
        {proof.shield === "red" && <Failures proof={proof} />}
        {proof.sections.map((section) => (
          <Section key={section.title} {...section} />
        ))}
        {proof.facts.length > 0 && (
          <section>
            <h3>What it is about</h3>
            <dl class="facts small">
              {proof.facts.map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd class={value.startsWith("sha256:") ? "mono" : ""}>{value}</dd>
                </div>
              ))}
            </dl>
          </section>
        )}
        <Files proof={proof} />
      </div>
    </Modal>
  );
}
