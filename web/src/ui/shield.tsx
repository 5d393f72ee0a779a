import type { Shield as Colour } from "../verify/index.ts";
import { standing } from "./desk.ts";
import { ShieldIcon } from "./icons.tsx";
import { showRoom } from "./trusting.ts";
import { shieldName } from "./words.ts";

interface Props {
  colour: Colour | "open" | "busy";
  text?: string;
  framed?: boolean;
  disabled?: boolean;
  onClick?: () => void;
}

/** A shield with its words; a click opens the checks behind it. */
export function Shield({ colour, text, framed = false, disabled = false, onClick }: Props) {
  const words = text ?? shieldName(colour);
  return (
    <button
      type="button"
      class={`shield ${colour} ${framed ? "framed" : ""}`}
      data-shield={colour}
      disabled={disabled}
      aria-haspopup="dialog"
      aria-label={disabled ? `Shield: ${words}` : `Shield: ${words}. Show the checks.`}
      onClick={onClick}
    >
      <ShieldIcon colour={colour} />
      <span class={framed ? "long cut" : "cut"}>{words}</span>
    </button>
  );
}

/** How it stands with the room, in the bar. */
export function RoomShield() {
  const now = standing.value;
  if (now.at === "open") {
    const platform = now.found.result?.platform ?? "";
    return (
      <Shield
        framed
        colour={now.colour}
        text={`${shieldName(now.colour, now.found.result?.label)} room${now.colour === "green" ? `, ${platform}` : ""}`}
        onClick={showRoom}
      />
    );
  }
  if (now.at === "refused") return <Shield framed colour="red" text="Room not verified" onClick={showRoom} />;
  if (now.at === "unreachable") return <Shield framed colour="open" text="No answer" disabled />;
  return <Shield framed colour="busy" text="Verifying the room" disabled />;
}
