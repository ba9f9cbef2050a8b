// The SDK of CloudEvents for JavaScript, for the tests in Python: `write` makes messages of the events on
// standard input, `read` makes events of the bodies there.
import { CloudEvent, HTTP } from "cloudevents";

const headers = { "content-type": "application/cloudevents+json" };
const ways = {
  structured: (event) => HTTP.structured(new CloudEvent(event)),
  binary: (event) => HTTP.binary(new CloudEvent(event)),
  read: (body) => HTTP.toEvent({ headers, body: JSON.stringify(body) }).toJSON(),
};

let given = "";
for await (const part of process.stdin) given += part;
console.log(JSON.stringify(ways[process.argv[2]](JSON.parse(given))));
