// The posted event as a command or a program. `target` has the url of the api, and whether it wants
// a key, which is then taken from the environment. `body` is JSON, sent as it stands.

export const SNIPPETS = { curl, python, javascript };

function curl({ url, isKeyed }, body) {
  const key = isKeyed ? '  -H "authorization: Bearer $NOTIFIER_API_KEY" \\\n' : "";
  return `curl ${inShell(url)} \\
  -H 'content-type: application/json' \\
${key}  --data-raw ${inShell(visible(body))}
`;
}

function python({ url, isKeyed }, body) {
  const key = isKeyed ? 'headers["authorization"] = "Bearer " + os.environ["NOTIFIER_API_KEY"]\n' : "";
  const { host, pathname } = new URL(url);
  return `${isKeyed ? "import os\n" : ""}from http.client import HTTPConnection

event = ${inQuotes(visible(body))}
headers = {"content-type": "application/json"}
${key}api = HTTPConnection("${host}")
api.request("POST", "${pathname}", event.encode(), headers)
answer = api.getresponse()
print(answer.status, answer.read().decode())
`;
}

function javascript({ url, isKeyed }, body) {
  const key = isKeyed ? "    authorization: `Bearer ${process.env.NOTIFIER_API_KEY}`,\n" : "";
  return `const event = ${inQuotes(visible(body))};

fetch("${url}", {
  method: "POST",
  headers: {
    "content-type": "application/json",
${key}  },
  body: event,
}).then(async (answer) => console.log(answer.status, await answer.text()));
`;
}

// JSON has these characters in strings alone, but for white space, so an escape means the same. A
// reader does not see them, or sees the text in another order (U+202E); U+200D joins emoji.
const UNSEEN = /[\p{Zl}\p{Zp}\p{Cs}\u007f-\u009f]|(?!\u200d)\p{Cf}/gu;

function visible(json) {
  const escapes = (unseen) => unseen.split("").map(escaped).join("");
  return json.replace(/[\t\r]/g, " ").replace(UNSEEN, escapes);
}

function escaped(unit) {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function inShell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// Single quotes and the three escapes mean the same in Python and in JavaScript.
function inQuotes(text) {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'").replaceAll("\n", "\\n")}'`;
}
