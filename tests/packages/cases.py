"""Popular npm packages of Lambda functions, each with an expression that uses it.

An expression needs neither network nor files of the project, and gives the same value
each time. ``m`` is the module's namespace, ``d`` its default export.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from lambda_deno_spawn.dev.package.node_modules import needed_packages

HTTP_EVENT = (
    '{version: "2.0", rawPath: "/", rawQueryString: "", headers: {host: "a"}, '
    'requestContext: {http: {method: "GET", path: "/", sourceIp: "127.0.0.1"}}, '
    "isBase64Encoded: false}"
)
JWT = '"a-secret-of-at-least-32-characters"'
CASES = {
    "@apollo/server": 'new m.ApolloServer({typeDefs: "type Query { a: Int }", '
    "resolvers: {Query: {a: () => 1}}}).executeOperation({query: '{ a }'})"
    ".then((r) => r.body.singleResult.data.a)",
    "@aws-lambda-powertools/logger": "new m.Logger({serviceName: 'a'}).level",
    "@aws-sdk/client-dynamodb": "new m.DynamoDBClient({region: 'eu-west-1'}).config"
    ".apiVersion",
    "@aws-sdk/client-s3": "new m.S3Client({region: 'eu-west-1'}).config.apiVersion",
    "@aws-sdk/client-sqs": "new m.SQSClient({region: 'eu-west-1'}).config.apiVersion",
    "@aws-sdk/lib-dynamodb": "typeof m.DynamoDBDocumentClient.from",
    "@middy/core": "d(() => 1)({}, {}).then(String)",
    "@opentelemetry/sdk-node": "typeof new m.NodeSDK({}).start",
    "@sentry/aws-serverless": "typeof m.wrapHandler(() => 1)",
    "ajv": "new m.Ajv().validate({type: 'integer'}, 1)",
    "async": "d.map([1, 2], async (x) => x * 2)",
    "aws-xray-sdk-core": "(process.env.AWS_XRAY_CONTEXT_MISSING = 'IGNORE_ERROR', "
    "typeof d.captureAsyncFunc)",
    "axios": "d.create({baseURL: 'http://a'}).getUri({url: '/b', params: {c: 1}})",
    "bcryptjs": "d.compareSync('a', d.hashSync('a', 4))",
    "bluebird": "d.map([1, 2], (x) => x * 2)",
    "chalk": "new m.Chalk({level: 1}).red('a')",
    "cheerio": "m.load('<p>a</p>')('p').text()",
    "commander": "new m.Command().option('-a <b>').parse(['-a', 'c'], {from: 'user'})"
    ".opts()",
    "cors": "typeof d()",
    "csv-parse": "new Promise((ok) => m.parse('a,b', (_, rows) => ok(rows)))",
    "date-fns": "m.addDays(new Date(0), 1).toISOString()",
    "dayjs": "d(0).toISOString()",
    "dotenv": "d.parse('A=1')",
    "ejs": "d.render('<%= a %>', {a: 1})",
    "express": "typeof d().get",
    "fast-xml-parser": "new m.XMLParser().parse('<a>1</a>')",
    "fastify": "(() => { const app = d(); app.get('/', async () => ({a: 1})); "
    "return app.inject('/').then((r) => r.json()); })()",
    "form-data": "(() => { const f = new d(); f.append('a', 'b'); "
    "return f.getBuffer().length; })()",
    "got": "typeof d.extend({}).get",
    "graphql": "m.graphql({schema: m.buildSchema('type Query { a: Int }'), "
    "source: '{ a }', rootValue: {a: 1}}).then((r) => r.data.a)",
    "handlebars": "d.compile('{{a}}')({a: 1})",
    "hono": "Promise.resolve(new m.Hono().get('/', (c) => c.text('a')).request('/'))"
    ".then((r) => r.text())",
    "ioredis": "new d({lazyConnect: true}).status",
    "joi": "d.object({a: d.number()}).validate({a: '1'}).value",
    "jsdom": "new m.JSDOM('<p>a</p>').window.document.querySelector('p').textContent",
    "jsonwebtoken": f"d.verify(d.sign({{a: 1}}, {JWT}), {JWT}).a",
    "knex": "d({client: 'pg'}).select('a').from('b').toString()",
    "koa": "typeof new d().callback()",
    "lodash": "d.chunk([1, 2, 3], 2)",
    "luxon": "m.DateTime.fromMillis(0, {zone: 'utc'}).toISO()",
    "marked": "m.parse('# a')",
    "moment": "(d.locale('de'), d.utc(0).format('MMMM'))",
    "mongodb": "new m.MongoClient('mongodb://a').options.hosts.length",
    "mongoose": "new m.Schema({a: String}).path('a').instance",
    "mustache": "d.render('{{a}}', {a: 1})",
    "mysql2": "d.format('SELECT ?', [1])",
    "nanoid": "m.nanoid().length",
    "node-fetch": "new m.Request('http://a/').url",
    "nodemailer": "d.createTransport({jsonTransport: true}).sendMail({to: 'a@b.c', "
    "text: 'd'}).then((r) => JSON.parse(r.message).text)",
    "pdfkit": "new Promise((ok) => { const doc = new d(); let n = 0; "
    "doc.on('data', (b) => n += b.length); doc.on('end', () => ok(n > 500)); "
    "doc.font('Helvetica').text('a'); doc.end(); })",
    "pg": "new d.Pool().totalCount",
    "pino": "d({level: 'silent'}).level",
    "qs": "d.parse('a[b]=1')",
    "redis": "m.createClient().isOpen",
    "rxjs": "m.firstValueFrom(m.of(1))",
    "sanitize-html": "d('<b>a</b><script>b</script>')",
    "semver": "d.satisfies('1.2.3', '^1.0.0')",
    "serverless-http": "d((req, res) => res.end('a'))"
    f"({HTTP_EVENT}, {{}}).then((r) => r.body)",
    "sharp": "d({create: {width: 2, height: 2, channels: 3, background: '#fff'}})"
    ".png().toBuffer().then((b) => b.length > 50)",
    "stripe": "typeof new d('sk_test_a').charges.create",
    "tslib": "typeof m.__awaiter",
    "twilio": "typeof d.twiml.MessagingResponse",
    "undici": "typeof new m.Agent().request",
    "uuid": "m.v5('a', m.v5.DNS)",
    "winston": "new Promise((ok) => { const log = d.createLogger({transports: "
    "[new d.transports.Console()], format: d.format.simple()}); ok(log.level); })",
    "ws": "typeof d.Server",
    "xml2js": "d.parseStringPromise('<a>1</a>')",
    "yup": "m.object({a: m.number()}).validate({a: '1'})",
    "zod": "m.z.object({a: m.z.number()}).parse({a: 1})",
}

# What a package may do beyond the default: load native code.
OPTIONS = {"sharp": ("--env", "LAMBDA_DENO_PERMISSIONS=default --allow-ffi")}


def handler(specifier: str, name: str) -> str:
    """Return the code of a handler that uses a package."""
    return (
        f"import * as m from {specifier!r};\n"
        "const d = m.default;\n"
        f"void d;\nexport const handler = async () => ({CASES[name]});\n"
    )


def copy_needed(name: str, version: str, shared: Path, project: Path) -> None:
    """Give a project one package of a folder, and what that needs."""
    manifest = {"dependencies": {name: version}}
    (project / "package.json").write_text(json.dumps(manifest))
    first = shared / "node_modules" / name / "package.json"
    for folder in sorted(needed_packages(shared, [first], only_imported=True) or ()):
        shutil.copytree(
            folder,
            project / Path(folder).relative_to(shared),
            ignore=shutil.ignore_patterns("node_modules"),
            copy_function=_link,
            dirs_exist_ok=True,
        )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
