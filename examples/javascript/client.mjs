// A client as one writes it for the real service. Nothing in it knows of a mock.
import { setTimeout as pause } from "node:timers/promises";

import { Client } from "wavespeed";

const TRAINER = "wavespeed-ai/flux-dev-lora-trainer-turbo";
const IMAGES = "wavespeed-ai/flux-schnell-lora";

/** Learns a subject from pictures, and makes new pictures of it. */
export class Studio {
  /**
   * `apiKey` is by default WAVESPEED_API_KEY, and `baseUrl` the real service. `pollSeconds` is the pause between two
   * looks at a task, `busySeconds` the one before a submit that was refused for its rate is sent again.
   */
  constructor({ apiKey, baseUrl, pollSeconds = 2, busySeconds = 5 } = {}) {
    this.sdk = new Client(apiKey, { baseUrl });
    this.pollSeconds = pollSeconds;
    this.busySeconds = busySeconds;
  }

  /** The address of a LoRA that knows the pictures in a zip file by `triggerWord`. */
  async train(archive, triggerWord) {
    const data = await this.sdk.upload(archive);
    const [lora] = await this.#run(TRAINER, { data, trigger_word: triggerWord });
    return lora;
  }

  /** The bytes of a new picture. */
  async generate(prompt, { lora, ...more } = {}) {
    const loras = lora ? [{ path: lora, scale: 1 }] : [];
    const [address] = await this.#run(IMAGES, { prompt, loras, ...more });
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: HTTP ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  }

  /** After a 429 nothing was begun, so it is sent again. After any other trouble a second task might be paid for. */
  async #run(model, input) {
    for (let left = 3; ; left--) {
      try {
        const { outputs } = await this.sdk.run(model, input, { pollInterval: this.pollSeconds });
        return outputs;
      } catch (error) {
        if (left === 0 || !error.message.includes("submission failed: HTTP 429")) throw error;
        await pause(this.busySeconds * 1000);
      }
    }
  }
}
