import { useEffect, useRef } from "preact/hooks";
import { ChecksPanel } from "./checks.tsx";
import { announced, phase, toast } from "./desk.ts";
import { Dialogs } from "./dialogs.tsx";
import { begin } from "./entering.ts";
import { Rail } from "./rail.tsx";
import { onKey } from "./shortcuts.ts";
import { Stage } from "./stage.tsx";
import { Impossible, Locked, Welcome } from "./welcome.tsx";

export function App() {
  useEffect(() => {
    document.addEventListener("keydown", onKey);
    void begin();
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  return (
    <>
      <Phase />
      <Dialogs />
      <ChecksPanel />
      <div class="unseen" role="status" aria-live="polite" id="announced">
        {announced.value}
      </div>
      {toast.value && <Toast />}
    </>
  );
}

/** In the top layer, so that an open dialog does not cover it. */
function Toast() {
  const at = useRef<HTMLDivElement>(null);
  useEffect(() => at.current?.showPopover(), []);
  return (
    <div class="toast" ref={at} popover="manual" aria-hidden="true">
      {toast.value}
    </div>
  );
}

function Phase() {
  switch (phase.value) {
    case "starting":
      return null;
    case "impossible":
      return <Impossible />;
    case "locked":
      return <Locked />;
    case "welcome":
      return <Welcome />;
    default:
      return (
        <div class="app">
          <button type="button" class="button skip" onClick={() => document.getElementById("message")?.focus()}>
            To the message box
          </button>
          <Rail />
          <Stage />
        </div>
      );
  }
}
