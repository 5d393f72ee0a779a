// The official client of OpenAI's for JavaScript, unmodified, through `strongroom proxy`: node client.mjs BASE_URL MODEL

import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "How do cells divide?" }];
const said = {};

said.models = (await client.models.list()).data.map((one) => one.id);
said.chat = (await client.chat.completions.create({ model, messages })).choices[0].message.content;
said.stream = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    said.stream += chunk.choices[0]?.delta?.content ?? "";
}
said.completion = (await client.completions.create({ model, prompt: "Cells" })).choices[0].text;
said.embeddings = (await client.embeddings.create({ model, input: ["a", "b"] })).data.length;
try {
    await client.chat.completions.create({ model: "none", messages });
} catch (error) {
    said.missing = error.status;
}
console.log(JSON.stringify(said));
