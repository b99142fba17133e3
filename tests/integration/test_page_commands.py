"""Each command on a page that is not a guide is run here, or has a reason why not.

Guides and pages for migration are followed to the letter elsewhere (``test_guides.py``,
``test_pages.py``), and so are the READMEs of examples (``test_examples.py``). All other
pages show commands by themselves. They are run one after the other by one reader, who
has the projects that the pages speak of, and moto's AWS.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.fixtures.command import run_command
from tests.fixtures.packages import download, fetch_bundler
from tests.fixtures.pages import GUIDES, MIGRATION, PAGES, ROOT
from tests.fixtures.pages import commands as commands_on
from tests.integration.dev_server import DevServer, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fixtures.cloud import Cloud

pytestmark = pytest.mark.deno

# Their blocks are followed elsewhere; what is beside these is not.
FOLLOWED = {*GUIDES, *MIGRATION}
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
RUNTIME = "lambda-deno-spawn-runtime-x86_64"
DENO = "lambda-deno-spawn-deno-x86_64"


@dataclass(frozen=True)
class Run:
    """How a command is run, and what comes of it.

    Attributes:
        where: Its working directory, below the reader's folder.
        prints: Text that has to be in its output.
        code: Its exit code.
        adds: Arguments that a reader need not type: the answer to a question, or
            another port.
        replaces: Words of the page that stand for something of the reader's.
        stdin: What it reads.
    """

    where: str = "."
    prints: str = ""
    code: int = 0
    adds: tuple[str, ...] = ()
    replaces: tuple[tuple[str, str], ...] = ()
    stdin: str = ""


NEVER_ENDS = (
    "it does not end by itself: test_dev.py, test_dev_urls.py and guides run `dev`"
)
TAKES_MINUTES = "it sends hundreds of events in six ways: test_bench.py runs fewer"
NO_URL = "nobody answers at the URLs of moto's functions: test_call.py has a server"
NO_BASE = "it downloads AWS's base image: test_container.py and test_deploy_image.py"
WANTS_DEBUGGER = "it waits for a debugger: test_debugging.py is one"
TAKES_LONG = "test_doctor.py runs it"
PORT = ("--port", "PORT")
# In this order: what a command leaves is there for the next ones.
COMMANDS: dict[str, Run | str] = {
    "new orders --template http": Run(prints="orders"),
    "new shop --template http": Run(prints="Created shop:"),
    "new my-function": Run(prints="Created my-function:"),
    "new my-api --template http --path services --arch arm64": Run(
        prints="Created services/my-api:"
    ),
    "new orders --template cdk": Run("cdk", "cdk/deno-function.ts"),
    "init --dry-run": Run("existing", "lambda.toml"),
    "init": Run("existing", "wrote     lambda.toml"),
    "init orders --dry-run": Run("unprepared", "lambda.toml"),
    "dev orders": NEVER_ENDS,
    "dev shop": NEVER_ENDS,
    "dev .": NEVER_ENDS,
    "dev services": NEVER_ENDS,
    "dev orders users --record failures": NEVER_ENDS,
    "dev --allow-origin http://localhost:5173": NEVER_ENDS,
    "dev shop --inspect": WANTS_DEBUGGER,
    "invoke . --event @events/greeting.json --inspect": WANTS_DEBUGGER,
    "invoke orders --event @orders/events/hello.json": Run(prints="REPORT RequestId"),
    "invoke . --event @event.json": Run("my-function", "Hello Ada"),
    "invoke . --event sqs --memory 256": Run("my-function", "Memory Size: 256 MB"),
    "invoke . --event s3-put --set Records.0.s3.bucket.name=photos": Run(
        "my-function", "Hello world"
    ),
    "invoke . --env DB_URL=postgres://localhost/orders": Run(
        "secrets", "postgres://localhost/orders"
    ),
    "invoke . --stage prod --env-file .env": Run("stages", '"orders info"'),
    "invoke . --env-file .env": Run("stages", '"orders-dev info"'),
    "invoke . --event @order.json --record failures": Run("failing", "TypeError", 1),
    "replay last": Run("failing", "TypeError"),
    "replay --list": Run("failing", "TypeError"),
    "replay 8f507cfc": Run("failing", "TypeError"),
    "replay order.json ./orders": Run("recorded", "TypeError"),
    "explain": Run(prints="allow-net", stdin='Requires net access to "a.example:443"'),
    "explain function.log": Run("recorded", "Runtime.ExitError"),
    "explain @log.txt": Run("recorded", "Runtime.ExitError"),
    "explain 'NotCapable: Requires net access'": Run(prints="permissions"),
    "explain 'NotCapable: Requires net access to …'": Run(prints="permissions"),
    "events": Run(prints="s3-put"),
    "events sqs": Run(prints="messageId"),
    "deno task test": Run("my-function", "passed"),
    "doctor .": Run("my-function", "deno-version"),
    "doctor --isolation": TAKES_LONG,
    "bench orders --event @orders/events/list.json": TAKES_MINUTES,
    "bench examples/hello --event @examples/hello/event.json": TAKES_MINUTES,
    "bench . --event @event.json --events 40": TAKES_MINUTES,
    "call orders /hello/Ada": Run(prints="GET /hello/Ada", adds=PORT),
    "call orders /items -d '{\"id\":1}'": Run(
        "items", 'POST /items {"id":1}', adds=PORT
    ),
    "call orders /items?limit=5": Run("items", "GET /items?limit=5", adds=PORT),
    "call orders /items -d @item.json -H 'X-Trace: 1' -i": Run(
        "items", 'POST /items {"id":2}', adds=PORT
    ),
    "build examples/hono-api": Run(prints="hono-api.zip"),
    "build .": Run("my-function", "my-function.zip"),
    "build . --check --minify --arch arm64": Run("my-function", "9 files"),
    "build orders --image --tar orders.tar": NO_BASE,
    "build orders --image --push 123456789012.dkr.ecr.eu-central-1.amazonaws.com/orders"
    ":v1": NO_BASE,
    "layer build --arch both": "the fixture `layers` builds these",
    "layer publish": Run(prints="lambda-deno-spawn-runtime"),
    "layer list": Run(prints="lambda-deno-spawn-runtime"),
    "layer list --region eu-central-1": Run(prints="lambda-deno-spawn-runtime"),
    "layer delete --keep 2 --dry-run": Run(prints="Nothing to do"),
    "layer delete --keep 2": Run(prints="Nothing to do", adds=("--yes",)),
    "layer delete lambda-deno-spawn-runtime-arm64 --keep 2": Run(
        prints="Nothing to do",
        replaces=(("lambda-deno-spawn-runtime-arm64", RUNTIME),),
        adds=("--yes",),
    ),
    "layer delete NAME:VERSION": Run(
        prints=f"{RUNTIME}:1",
        replaces=(("NAME:VERSION", f"{RUNTIME}:1"),),
        adds=("--yes",),
    ),
    "layer delete lambda-deno-spawn-runtime-arm64:3": Run(
        prints="deleted arn:",
        replaces=(("lambda-deno-spawn-runtime-arm64:3", f"{DENO}:1"),),
        adds=("--yes",),
    ),
    "deploy orders --function-url": Run(prints="function: arn:aws:lambda:"),
    "deploy orders --plan -o json": Run(prints="needsConfirmation"),
    "deploy --memory 1024 --env API_KEY=…": Run("orders", "512 MB -> 1024 MB"),
    "deploy .": Run("my-function", "function: arn:aws:lambda:"),
    "deploy . --function-url --yes": Run("my-function", "url:"),
    "deploy . --function-url": Run("my-function", "Nothing to do."),
    "deploy . --dry-run": Run("my-function", "Nothing to do."),
    "deploy --stage prod": Run("stages", ":function:orders-prod"),
    "deploy --stage prod --env-file common.env --env-file prod.env": Run(
        "stages", "env LEVEL"
    ),
    "deploy orders --image": NO_BASE,
    "logs FUNCTION": Run(
        prints="There are no entries", replaces=(("FUNCTION", "orders"),)
    ),
    "logs . --stage prod": Run("stages", "There are no entries in"),
    "logs orders --follow": "it does not end by itself: test_remote.py",
    "explain --logs orders": Run(prints="There are no entries in", code=1),
    "invoke --remote FUNCTION": "moto runs no functions: test_remote.py has a server",
    "invoke --remote orders --event @event.json": "as `invoke --remote FUNCTION`",
    "call orders /items --remote": NO_URL,
    "call orders /hello/Ada --remote": NO_URL,
    "call . /hello/Ada --remote": NO_URL,
    "call notes /notes/1 --remote": NO_URL,
    'call notes /notes/1 --remote -X PUT -d \'{"text": "buy milk"}\'': NO_URL,
    "delete FUNCTION": Run(
        prints="deleted function: ",
        replaces=(("FUNCTION", "orders"),),
        adds=("--yes",),
    ),
    "delete . --yes": Run("my-function", "deleted function: "),
}
NAMED = re.compile(r"test_\w+\.py")
STAGES = """\
name = "orders"

[env]
TABLE = "orders-dev"
LEVEL = "debug"

[stage.prod.env]
TABLE = "orders"
"""
SECRET = '[env]\nDB_URL = { from = "ssm", name = "/orders/db-url" }\n'
SHOWS = """\
const { TABLE, LEVEL, DB_URL } = Deno.env.toObject();
export const handler = () => DB_URL ?? `${TABLE} ${LEVEL}`;
"""
ECHO = """\
export default { fetch: async (request) => {
  const { pathname, search } = new URL(request.url);
  const body = await request.text();
  return new Response(`${request.method} ${pathname}${search} ${body}`);
} };
"""
FAILS = 'export const handler = () => { throw new TypeError("no price"); };\n'
LOG = "2026-01-01T00:00:00Z 8f5 ERROR Runtime.ExitError: the process has exited\n"


def commands() -> Iterator[str]:
    """Return the commands of all pages, without what a shell adds to them."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page in FOLLOWED:
            text = FENCE.sub("", text)
        yield from commands_on(text)


def test_every_command_is_run_or_has_a_reason() -> None:
    assert set(commands()) == set(COMMANDS)
    reasons = " ".join(how for how in COMMANDS.values() if isinstance(how, str))
    for name in NAMED.findall(reasons):
        assert (ROOT / "tests" / "integration" / name).is_file()


@pytest.fixture
def reader(empty_cloud: Cloud) -> Path:
    """What the reader has before the first command."""
    reader = empty_cloud.folder / "reader"
    write(
        reader,
        {
            "existing/index.mjs": "export const handler = () => 1;\n",
            "unprepared/orders/index.mjs": "export const handler = () => 1;\n",
            "services/orders/function.mjs": ECHO,
            "services/orders/lambda.toml": "",
            "cdk/README.md": "",
            "items/item.json": '{"id":2}',
            "stages/lambda.toml": STAGES,
            "stages/function.mjs": SHOWS,
            "stages/.env": "LEVEL=info\n",
            "stages/common.env": "LEVEL=info\n",
            "stages/prod.env": "LEVEL=warn\n",
            "secrets/lambda.toml": SECRET,
            "secrets/function.mjs": SHOWS,
            "failing/function.mjs": FAILS,
            "failing/order.json": "{}\n",
            "recorded/orders/function.mjs": FAILS,
            "recorded/function.log": LOG,
            "recorded/log.txt": LOG,
        },
    )
    # A deployment looks for layers in `dist`; their content does not matter here.
    empty_cloud.build_layers()
    shutil.copytree(empty_cloud.folder / "dist", reader / "dist")
    shutil.copytree(ROOT / "examples" / "hono-api", reader / "examples" / "hono-api")
    download(ROOT / "examples" / "hono-api")
    return reader


@pytest.mark.long
def test_the_commands_do_what_the_pages_say(
    reader: Path, stand_in: dict[str, str], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere")
    state = tmp_path / "state"
    environ = {
        **{name: os.environ[name] for name in os.environ if name[:4] != "AWS_"},
        **stand_in,
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "XDG_STATE_HOME": str(state),
        "DENO_DIR": fetch_bundler(),
        "NO_COLOR": "1",
    }
    with DevServer(reader / "services") as server:
        known = {"PORT": str(urlsplit(server.url).port)}
        for command, how in COMMANDS.items():
            if isinstance(how, str):
                continue
            replaced = {**known, **dict(how.replaces)}
            words = [*shlex.split(command), *how.adds]
            done = run_command(
                *(replaced.get(word, word) for word in words),
                cwd=reader / how.where,
                environ=environ,
                stdin=how.stdin.encode(),
            )
            output = (done.stdout + done.stderr).decode()
            assert done.returncode == how.code, f"{command}: {output}"
            assert how.prints in output, f"{command}: {output}"
            if command == "new my-function":
                (reader / "my-function" / "event.json").write_text('{"name": "Ada"}')
            if "--record" in words:
                [recording] = state.glob("*/recordings/*.json")
                shutil.copy(recording, reader / "recorded" / "order.json")
                known["8f507cfc"] = json.loads(recording.read_bytes())["requestId"][:8]
