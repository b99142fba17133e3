"""The plan that turns the current state of a function into the wanted one.

Knows in which order a function changes, and how to revert each change. Does not call
AWS: the same two states always give the same plan. Specification: docs/deploy.md;
Lambda API reference, CreateFunction, UpdateFunctionConfiguration, UpdateFunctionCode;
AWS "Control access to Lambda function URLs".
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lambda_deno_spawn.dev.aws.deploy_layers import (
    layer_changes,
    planned_layers,
    unpublished_layers,
)
from lambda_deno_spawn.dev.aws.deploy_settings import (
    NEW_POLICY,
    check_creation_only,
    plan_concurrency,
    plan_provisioned,
    plan_published,
    plan_record,
)
from lambda_deno_spawn.dev.aws.events import plan_events, plan_removal
from lambda_deno_spawn.dev.aws.image import (
    NEW_REPOSITORY_POLICY,
    check_image_size,
    plan_image,
)
from lambda_deno_spawn.dev.aws.plan import (
    FUNCTION_SET_UP,
    NO_ROLE,
    Call,
    Change,
    Only,
    Plan,
    ResultOf,
    Step,
    Wait,
    shown_value,
)
from lambda_deno_spawn.dev.aws.publish import (
    base64_digest,
    content_steps,
    publish_steps,
)
from lambda_deno_spawn.dev.aws.role import OUR_SIDS
from lambda_deno_spawn.dev.aws.secrets import with_secrets
from lambda_deno_spawn.dev.aws.settings import (
    changed_parameters,
    recorded_keys,
    restored,
    setting_changes,
    tags_to_record,
)
from lambda_deno_spawn.dev.aws.wanted import (
    OUR_TAG,
    WRAPPER,
    WRAPPER_PATH,
    own_role_name,
    qualified,
    role_policy,
    role_policy_name,
    settings_of,
    with_removals,
)
from lambda_deno_spawn.dev.project.aws_keys import MANAGED_MEMORY_MIN_MB
from lambda_deno_spawn.dev.project.project import RUNTIMES
from lambda_deno_spawn.dev.project.quotas import (
    DEFAULT_MEMORY_MB,
    DEFAULT_TIMEOUT_S,
    MB,
    OS_ONLY,
    UNZIPPED_LIMIT_BYTES,
)
from lambda_deno_spawn.errors import DeployError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lambda_deno_spawn.dev.aws.wanted import (
        Current,
        FunctionState,
        RoleState,
        Wanted,
    )

    _Value = str | int | list[str]

# Texts of CreateFunction about a role that is too new to be known in all of AWS.
NEW_ROLE = (
    NO_ROLE,
    "KMS key is invalid for CreateGrant",
    "execution role does not have permissions",
)
# Text of IAM about a role that is not known in all of IAM yet, though it was found.
NEW_IN_IAM = ("cannot be found",)
NEW_RETENTION_DAYS = 30
URL_STATEMENT = "FunctionURLAllowPublicAccess"
INVOKE_STATEMENT = "FunctionURLInvokeAllowPublicAccess"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
# All variables together, as compact JSON in UTF-8: Lambda's error message quotes the
# string that it measured. AWS "Lambda quotas".
ENVIRONMENT_LIMIT_BYTES = 4096
# A request of UpdateFunctionConfiguration has to be smaller; from Lambda's error
# message.
REQUEST_LIMIT_BYTES = 5120


def plan_deploy(wanted: Wanted, current: Current) -> Plan:
    """Plan the changes from the current state of a function to the wanted one.

    Raises:
        UsageError: The change would replace a function that is not ours, and
            ``changes_runtime`` is not set.
        DeployError: The wanted state cannot be reached.
    """
    return _Planner(with_removals(wanted, current.function), current).plan()


@dataclass(frozen=True, slots=True)
class _Setting:
    """A part of a function's configuration.

    Attributes:
        name: Name to show to the user.
        parameter: Name in the API.
        wanted: Wanted value; None: leave it unchanged.
        before: Current value; None: the function does not exist.
        unit: Shown after the value.
        is_wrapped: The API's form is ``{"Size": value}``, as for EphemeralStorage.
    """

    name: str
    parameter: str
    wanted: _Value | None
    before: _Value | None
    unit: str = ""
    is_wrapped: bool = False

    def value(self, value: object) -> object:
        return {"Size": value} if self.is_wrapped else value

    def shown(self, value: object) -> str:
        return f"{value or repr('')}{self.unit}"


class _Planner:
    """Collects the changes and steps of one plan."""

    def __init__(self, wanted: Wanted, current: Current) -> None:
        self._wanted = wanted
        self._current = current
        self._place = current.place
        self._arn = current.place.function(wanted.name)
        self._changes: list[Change] = []
        self._steps: list[Step] = []
        self._revision = current.function.revision if current.function else ""
        self._qualified_arn, self._qualified = qualified(wanted, current.place)
        self._has_new_policy = False

    def plan(self) -> Plan:
        function = self._current.function
        if function is not None:
            _check_replaceable(self._wanted, function)
            check_creation_only(self._wanted, function)
        role = self._plan_role()
        layers = self._plan_layers()
        self._check_size()
        self._plan_log_group()
        if function is None:
            self._plan_creation(role, layers)
        else:
            self._plan_update(function, role, layers)
        self._add(plan_concurrency(self._wanted, self._current))
        self._plan_alias()
        self._add(plan_provisioned(self._wanted, self._current))
        self._plan_url()
        self._plan_events()
        self._plan_former()
        self._add(plan_record(self._wanted, self._current))
        return Plan(tuple(self._changes), tuple(self._steps))

    def _add(self, planned: Iterable[tuple[Change | None, Step]]) -> None:
        for change, step in planned:
            if change is not None:
                self._changes.append(change)
            self._steps.append(step)

    # Each method below adds the changes of one resource, and the steps that make them.

    def _plan_role(self) -> str:
        """Return the role's ARN, which is known before the role exists."""
        wanted, role = self._wanted, self._current.role
        if wanted.role is not None:
            if role is None:
                raise DeployError(
                    f"Cannot use the role {wanted.role!r}: it does not exist in IAM; "
                    "create it, or leave out --role to let `deploy` create one"
                )
            return role.arn
        name = own_role_name(wanted.name)
        if self._current.function is not None:
            if self._current.own_role is not None:
                self._plan_role_policy(name, self._current.own_role)
            return self._current.function.role
        arn = self._place.role(name)
        if role is not None and not role.is_ours:
            raise DeployError(
                f"Cannot create the role {name!r}: a role with this name exists that "
                f"this tool did not create; use it with --role {name}, or give another"
            )
        if role is None:
            self._changes.append(Change("new role", None, name))
            tags = [{"Key": OUR_TAG[0], "Value": OUR_TAG[1]}]
            self._call(
                "iam",
                "CreateRole",
                arn,
                {
                    "RoleName": name,
                    "AssumeRolePolicyDocument": TRUST,
                    "Description": f"Execution role of the function {wanted.name}",
                    "Tags": tags,
                },
            )
            there = Call("iam", "GetRole", arn, {"RoleName": name})
            self._steps.append(Step(Wait("role_exists", there)))
        self._plan_role_policy(name, role)
        return arn

    def _plan_role_policy(self, name: str, role: RoleState | None) -> None:
        """Let the role do what the function's settings need, and nothing else."""
        _, settings = settings_of(self._wanted, self._current.function)
        policy = role_policy(
            self._wanted.name, self._place, settings, self._wanted.sources
        )
        policy = with_secrets(policy, self._wanted.variables, self._place)
        policy_name = role_policy_name(self._place)
        if role is not None and role.policy == policy:
            return
        if role is not None:
            before = None if role.policy is None else json.dumps(role.policy)
            loses = _was_edited(role.policy, policy)
            what = f"role policy {policy_name}"
            self._changes.append(Change(what, before, json.dumps(policy), loses))
        self._has_new_policy = True
        given = {
            "RoleName": name,
            "PolicyName": policy_name,
            "PolicyDocument": json.dumps(policy),
        }
        call = Call("iam", "PutRolePolicy", self._place.role(name), given)
        retry_while = NEW_IN_IAM if role is None else ()
        self._steps.append(Step(call, retry_while=retry_while))

    def _plan_layers(self) -> list[str | ResultOf]:
        layers = planned_layers(self._wanted, self._current)
        for built in unpublished_layers(self._wanted, self._current):
            self._changes.append(Change(f"layer {built.name}", None, "published"))
            self._steps += publish_steps(built, self._place, self._wanted.bucket)
        return layers

    def _check_size(self) -> None:
        """Reject a package that is too large together with its layers, or an image.

        Raises:
            UsageError: It is. Layers of others may be larger than AWS says, so Lambda
                may still refuse what is accepted here.
        """
        wanted, current = self._wanted, self._current
        if wanted.image is not None:
            check_image_size(wanted.name, wanted.image)
            return
        names = wanted.layers or wanted.layer_names
        sizes = {}
        for name in names:
            version, built = current.layers.get(name), current.built.get(name)
            if version is not None:
                sizes[name] = version.least_bytes
            elif built is not None:
                sizes[name] = built.unzipped_bytes
        package_bytes = wanted.package.unzipped_bytes
        layers_bytes = sum(sizes.values())
        if package_bytes + layers_bytes > UNZIPPED_LIMIT_BYTES:
            raise UsageError(
                f"Cannot deploy {wanted.name!r}: the package has "
                f"{package_bytes / MB:.1f} MB unzipped and its layers "
                f"{layers_bytes / MB:.1f} MB, and Lambda accepts "
                f"{UNZIPPED_LIMIT_BYTES // MB} MB together; leave out what the handler "
                "does not need, with `exclude` in lambda.toml"
            )

    def _plan_log_group(self) -> None:
        name = self._wanted.log_group
        function = self._current.function
        if (
            function is not None
            and function.log_group != name
            and "logs.group" not in {*self._wanted.keys, *recorded_keys(function.tags)}
        ):
            return  # not ours: its owner chose it, and its retention
        is_kept_for = self._current.log_retention_days
        days = self._wanted.retention_days
        arn = self._place.log_group(name)
        if is_kept_for is None:
            days = days or NEW_RETENTION_DAYS
            self._changes.append(Change("log group", None, name))
            self._call("logs", "CreateLogGroup", arn, {"logGroupName": name})
        elif days is None or days == is_kept_for:
            return
        before = None if is_kept_for is None else f"{is_kept_for or 'all'} days"
        loses = is_kept_for is not None and not 0 < is_kept_for < days
        self._changes.append(Change("log retention", before, f"{days} days", loses))
        parameters = {"logGroupName": name, "retentionInDays": days}
        self._call("logs", "PutRetentionPolicy", arn, parameters)

    def _plan_creation(self, role: str, layers: list[str | ResultOf]) -> None:
        wanted = self._wanted
        variables = merged_variables({}, wanted)
        tags = {**wanted.tags, OUR_TAG[0]: OUR_TAG[1]}
        tags |= tags_to_record(wanted.recorded, wanted.alias)
        settings = [
            *_settings(wanted, None, role),
            _Setting("architecture", "Architectures", [wanted.arch], None),
        ]
        given = {
            s.parameter: s.value(s.wanted) for s in settings if s.wanted is not None
        }
        self._changes.append(Change("function", None, wanted.name))
        for setting in settings:
            if setting.wanted is not None:
                shown = setting.wanted
                text = wanted.arch if isinstance(shown, list) else setting.shown(shown)
                self._changes.append(Change(setting.name, None, text))
        defaults, after = settings_of(wanted, None)
        given |= changed_parameters(defaults, after)
        self._changes += setting_changes(defaults, after, is_new=True)
        self._changes += layer_changes((), layers)
        self._changes += variable_changes({}, variables)
        self._changes += [Change(f"tag {key}", None, tags[key]) for key in sorted(tags)]
        before, content = self._code()
        self._steps += before
        creation = {
            "FunctionName": wanted.name,
            **given,
            **({} if wanted.is_image else {"Layers": layers}),
            "Environment": {"Variables": variables},
            "Tags": tags,
            "PackageType": "Image" if wanted.is_image else "Zip",
            "Code": content,
        }
        name = {"FunctionName": wanted.name}
        # Delete it only if it failed. If it is slow, or its state is unknown, keep it:
        # the next run continues with it.
        gone = Only(
            Call("lambda", "DeleteFunction", self._arn, name),
            asks=Call("lambda", "GetFunction", self._arn, name),
            name="Configuration.State",
            value="Failed",
        )
        self._steps.append(
            Step(
                Call("lambda", "CreateFunction", self._arn, creation),
                key="function",
                undo=(gone,),
                digest=self._sent_digest(),
                retry_while=(
                    *(NEW_ROLE if not wanted.role else ()),
                    *self._refused_meanwhile(),
                ),
            )
        )
        self._wait(FUNCTION_SET_UP if wanted.is_managed else "function_active_v2")

    def _plan_update(
        self, function: FunctionState, role: str, layers: list[str | ResultOf]
    ) -> None:
        wanted = self._wanted
        is_repair = function.failure is not None
        if is_repair:
            before = f"failed, {function.failure}"
            self._changes.append(Change("last update", before, "repeated"))
        given: dict[str, Any] = {}
        previous: dict[str, Any] = {}
        for setting in _settings(wanted, function, role):
            if setting.wanted is None:
                continue
            is_changed = setting.wanted != setting.before
            if is_changed:
                before, after = (
                    setting.shown(setting.before),
                    setting.shown(setting.wanted),
                )
                # Another handler suggests that this is a different function; another
                # version of Python does not.
                loses = setting.name in ("role", "handler") or (
                    setting.name == "runtime" and setting.before not in RUNTIMES
                )
                self._changes.append(Change(setting.name, before, after, loses))
            if is_changed or is_repair:
                given[setting.parameter] = setting.value(setting.wanted)
                previous[setting.parameter] = setting.value(setting.before)
        if layers != list(function.layers) or (is_repair and not wanted.is_image):
            self._changes += layer_changes(function.layers, layers)
            given["Layers"], previous["Layers"] = layers, list(function.layers)
        variables = merged_variables(function.variables, wanted)
        if variables != function.variables or is_repair:
            self._changes += variable_changes(function.variables, variables)
            given["Environment"] = {"Variables": variables}
            if function.environment_error is None:  # else the old values are unknown
                previous["Environment"] = {"Variables": dict(function.variables)}
        self._plan_settings(function, given, previous, is_repair=is_repair)
        needs_code = self._needs_code(function)
        before_code, content = self._code() if needs_code else ((), {})
        # The upload takes long and changes nothing, so it comes first.
        self._steps += before_code
        if given:
            code = function.code_sha256 if needs_code else None
            self._plan_configuration(given, previous, code)
        if needs_code:
            code_update = {
                "FunctionName": wanted.name,
                "Architectures": [wanted.arch],
                **content,
                **self._take_revision(),
            }
            call = Call("lambda", "UpdateFunctionCode", self._arn, code_update)
            # Once the new code is accepted it must not run with the old configuration:
            # later failures are repaired by running the command again, not by
            # reverting.
            step = Step(
                call,
                key="code",
                settles=True,
                digest=self._sent_digest(),
                retry_while=self._refused_meanwhile(),
            )
            self._steps.append(step)
            self._wait("function_updated_v2")
        self._plan_tags(function)

    def _plan_settings(
        self,
        function: FunctionState,
        given: dict[str, Any],
        previous: dict[str, Any],
        *,
        is_repair: bool,
    ) -> None:
        """Add the settings of the project file's keys for AWS."""
        before, after = settings_of(self._wanted, function)
        self._changes += setting_changes(before, after, is_new=False)
        found = changed_parameters(before, after)
        if is_repair:  # all that this tool has set, as the update may have failed at it
            nothing, _ = settings_of(self._wanted, None)
            found = {**changed_parameters(nothing, after), **found}
            found.pop("TenancyConfig", None)  # never accepted in an update
        given |= found
        previous |= restored(before, after, found)

    def _needs_code(self, function: FunctionState) -> bool:
        wanted = self._wanted
        there, digest = code_digests(wanted, function)
        if there != digest:
            before, after = shown_digest(there), shown_digest(digest)
            # The code of our functions has a source; any other may be the only copy.
            loses = not function.is_ours
            self._changes.append(Change("code", before, after, loses))
        if function.arch != wanted.arch:
            self._changes.append(
                Change("architecture", function.arch, wanted.arch, loses=True)
            )
        is_same = (there, function.arch) == (digest, wanted.arch)
        return not is_same or function.failure is not None

    def _plan_configuration(
        self, given: dict[str, Any], previous: dict[str, Any], code: str | None
    ) -> None:
        """Change the configuration, before the code, because it can be reverted.

        Args:
            given: The parameters to change.
            previous: Their current values.
            code: Digest of the current code; None: the code does not change.
        """
        name = {"FunctionName": self._wanted.name}
        operation = "UpdateFunctionConfiguration"
        asks = Call("lambda", "GetFunction", self._arn, name)
        wait = Wait("function_updated_v2", asks)
        restore = Call("lambda", operation, self._arn, {**name, **previous})
        back: Call | Only = restore
        if code is not None:
            # The new code may have been accepted although the response was lost.
            back = Only(restore, asks, "Configuration.CodeSha256", code)
        given = {**given, **self._take_revision()}
        _check_request(given)
        call = Call("lambda", operation, self._arn, {**name, **given})
        retry_while = NEW_POLICY if self._has_new_policy else ()
        self._steps.append(Step(call, undo=(back, wait), retry_while=retry_while))
        self._steps.append(Step(wait, settles=code is None))

    def _take_revision(self) -> dict[str, str]:
        """Return the revision that was read, for the first call that writes.

        Lambda refuses that call if the function was changed since. Later calls send no
        revision: a write creates a new one, applying it another, and publishing a
        third, so that the one in a response is outdated before the next call.
        """
        revision, self._revision = self._revision, ""
        return {"RevisionId": revision} if revision else {}

    def _plan_tags(self, function: FunctionState) -> None:
        tags = {
            key: value
            for key, value in self._wanted.tags.items()
            if function.tags.get(key) != value
        }
        for key in sorted(tags):
            change = Change(f"tag {key}", function.tags.get(key), tags[key])
            self._changes.append(change)
        if tags:
            self._take_revision()  # assumed: changing tags creates a new one
            given = {"Resource": self._arn, "Tags": tags}
            self._call("lambda", "TagResource", self._arn, given)

    def _plan_alias(self) -> None:
        wanted, current = self._wanted, self._current
        alias, function = current.alias, current.function
        touched = {
            "CreateFunction",
            "UpdateFunctionConfiguration",
            "UpdateFunctionCode",
        }
        is_changed = any(
            isinstance(step.action, Call) and step.action.operation in touched
            for step in self._steps
        )
        digest = self._version_digest()
        if wanted.alias is None:
            if wanted.is_managed:
                self._add(
                    plan_published(wanted, current, digest, is_changed=is_changed)
                )
            return
        if alias and function and not is_changed and alias.function.runs_as(function):
            return
        name = {"FunctionName": wanted.name}
        # The digest prevents publishing code that another user has just uploaded.
        self._call(
            "lambda",
            "PublishVersion",
            self._arn,
            {**name, "CodeSha256": digest, **self._take_revision()},
            key="version",
        )
        version = ResultOf("version", "Version")
        there = {**name, "Qualifier": version}
        active = Call("lambda", "GetFunctionConfiguration", self._arn, there)
        # A version is pending if it is in a VPC, or has a snapshot of its init phase.
        is_active = (ResultOf("version", "State"), "Active")
        wait = Wait("published_version_active", active, unless=is_active)
        self._steps.append(Step(wait))
        given: dict[str, Any] = {
            **name, "Name": wanted.alias, "FunctionVersion": version,
        }  # fmt: skip
        if alias is None:
            self._changes.append(Change(f"alias {wanted.alias}", None, "new version"))
            self._call("lambda", "CreateAlias", self._qualified_arn, given)
            return
        before = f"version {alias.version}"
        if alias.has_weights:
            before += ", and another for a share of the calls"
            given["RoutingConfig"] = {"AdditionalVersionWeights": {}}
        self._changes.append(
            Change(f"alias {wanted.alias}", before, "new version", alias.has_weights)
        )
        if alias.revision:
            given["RevisionId"] = alias.revision
        self._call("lambda", "UpdateAlias", self._qualified_arn, given)

    def _plan_url(self) -> None:
        wanted, url = self._wanted, self._current.url
        if wanted.url is False:
            if url is not None:
                self._changes.append(Change("function url", url.url, None, loses=True))
                self._call_url("DeleteFunctionUrlConfig", {})
            # Remove the permissions too if there is no URL, as after an interrupted
            # run: they would make the next URL public.
            self._plan_permissions(is_public=False)
        if not wanted.url:
            return
        auth = wanted.url_auth or (url.auth if url else "AWS_IAM")
        mode = wanted.invoke_mode or (url.invoke_mode if url else "BUFFERED")
        settings: dict[str, Any] = {"AuthType": auth, "InvokeMode": mode}
        shown = f"{auth}, {mode}"
        old_cors = {} if url is None else dict(url.cors)
        cors = old_cors if wanted.cors is None else wanted.cors
        if cors != old_cors:
            settings["Cors"] = cors
            before = json.dumps(old_cors) if old_cors else None
            after = json.dumps(cors) if cors else None
            self._changes.append(Change("function url cors", before, after))
        if url is None:
            self._changes.append(Change("function url", None, shown))
            self._call_url("CreateFunctionUrlConfig", settings, key="url")
        elif (url.auth, url.invoke_mode) != (auth, mode):
            before = f"{url.auth}, {url.invoke_mode}"
            loses = auth != url.auth  # callers lose access, or everyone gets it
            self._changes.append(Change("function url", before, shown, loses))
            self._call_url("UpdateFunctionUrlConfig", settings, key="url")
        elif cors != old_cors:
            self._call_url("UpdateFunctionUrlConfig", settings, key="url")
        self._plan_permissions(is_public=auth == "NONE")

    def _plan_permissions(self, *, is_public: bool) -> None:
        """Add or remove the permission for everyone to call the URL.

        Since October 2025 both statements are needed.
        """
        taken = {statement.get("Sid") for statement in self._current.statements}
        for sid, statement_of in (
            (
                URL_STATEMENT,
                {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
            ),
            (
                INVOKE_STATEMENT,
                {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
            ),
        ):
            found = [
                statement
                for statement in self._current.statements
                if _is_public(statement, str(statement_of["Action"]))
            ]
            if is_public and not found:
                while sid in taken:  # another statement has this id
                    sid += "-1"
                what = f"{statement_of['Action']} by the url"
                self._changes.append(Change(what, None, "everyone"))
                given = {"StatementId": sid, "Principal": "*", **statement_of}
                self._call_url("AddPermission", given)
            elif found and not is_public:
                for statement in found:
                    change = Change(
                        f"{statement_of['Action']} by the url", "everyone", None, True
                    )
                    self._changes.append(change)
                    given = {"StatementId": statement["Sid"]}
                    self._call_url("RemovePermission", given)

    def _plan_events(self) -> None:
        wanted, current = self._wanted, self._current
        tags = {} if current.function is None else current.function.tags
        events = current.events
        if current.former is not None:
            # Those of the former alias move, or go.
            both = (*current.former.events.mappings, *events.mappings)
            mappings = {item.uuid: item for item in both}
            events = dataclasses.replace(events, mappings=tuple(mappings.values()))
        self._add(
            plan_events(
                wanted.name,
                wanted.alias,
                wanted.keys.get("events", ()),
                events,
                self._place,
                NEW_POLICY if self._has_new_policy else (),
                removes="events" in recorded_keys(tags),
            )
        )

    def _plan_former(self) -> None:
        """Remove URL and schedules from the alias that was deployed before."""
        former = self._current.former
        if former is None:
            return
        name = self._wanted.name
        before = dataclasses.replace(self._wanted, alias=former.alias)
        arn, given = qualified(before, self._place)
        if former.url is not None:
            what = f"function url of {former.alias or 'the function'}"
            self._changes.append(Change(what, former.url.url, None, loses=True))
            self._call("lambda", "DeleteFunctionUrlConfig", arn, given)
        for statement in former.statements:
            if any(
                _is_public(statement, action)
                for action in ("lambda:InvokeFunctionUrl", "lambda:InvokeFunction")
            ):
                change = Change("calls by the former url", "everyone", None, loses=True)
                self._changes.append(change)
                sid = {"StatementId": statement["Sid"]}
                self._call("lambda", "RemovePermission", arn, {**given, **sid})
        rules = sorted(former.events.rules | former.events.permitted)
        loses = not self._wanted.keys.get("events")
        self._add(plan_removal(name, former.alias, [], rules, self._place, loses=loses))

    def _code(self) -> tuple[tuple[Step, ...], dict[str, Any]]:
        """Return the steps that bring the code to AWS, and how calls refer to it."""
        package, image = self._wanted.package, self._wanted.image
        if image is not None:
            planned = list(plan_image(image, self._current.repository, self._place))
            self._changes += [change for change, _ in planned if change is not None]
            uri = ResultOf("image", "ImageUri")
            return tuple(step for _, step in planned), {"ImageUri": uri}
        return content_steps(
            package.path,
            package.sha256,
            package.zipped_bytes,
            self._place,
            self._wanted.bucket,
        )

    def _sent_digest(self) -> tuple[str, str] | None:
        """Return what AWS has to answer to a zip; an image is named by its digest."""
        if self._wanted.is_image:
            return None
        return "CodeSha256", base64_digest(self._wanted.package.sha256)

    def _version_digest(self) -> str | ResultOf:
        """Return the digest of the code that a version is to have, as AWS calls it."""
        if not self._wanted.is_image:
            return base64_digest(self._wanted.package.sha256)
        keys = [step.key for step in self._steps if step.key in ("function", "code")]
        if keys:
            return ResultOf(keys[-1], "CodeSha256")
        function = self._current.function
        return "" if function is None else function.code_sha256

    def _refused_meanwhile(self) -> tuple[str, ...]:
        """Return texts of Lambda about a repository whose policy it does not know yet.

        Only after the steps of ``_code``.
        """
        has_policy = any(
            isinstance(step.action, Call)
            and step.action.operation == "SetRepositoryPolicy"
            for step in self._steps
        )
        return NEW_REPOSITORY_POLICY if has_policy else ()

    def _call(
        self,
        service: str,
        operation: str,
        arn: str,
        parameters: dict[str, Any],
        key: str = "",
    ) -> None:
        self._steps.append(Step(Call(service, operation, arn, parameters), key))

    def _call_url(
        self, operation: str, parameters: dict[str, Any], key: str = ""
    ) -> None:
        given = {**self._qualified, **parameters}
        self._call("lambda", operation, self._qualified_arn, given, key)

    def _wait(self, waiter: str) -> None:
        name = {"FunctionName": self._wanted.name}
        wait = Wait(waiter, Call("lambda", "GetFunction", self._arn, name))
        self._steps.append(Step(wait, settles=True))


def _check_replaceable(wanted: Wanted, function: FunctionState) -> None:
    """Reject replacing a function that is not ours, unless that is wanted."""
    what = f"Cannot deploy to {wanted.name!r}"
    check_package_type(wanted, function)
    if function.state == "Failed":
        raise DeployError(
            f"{what}: AWS could not set up that function, {function.state_reason}; "
            f"delete it with `lambda-deno-spawn delete {wanted.name}` and deploy again"
        )
    if function.state == "Deleting":
        raise DeployError(
            f"{what}: that function is being deleted; deploy again when it is gone"
        )
    if function.environment_error is not None and not wanted.replaces_env:
        raise DeployError(
            f"{what}: its environment variables cannot be read and would be lost, "
            f"{function.environment_error}; get access to its KMS key, or use "
            "--replace-env"
        )
    if wanted.changes_runtime:
        return
    if function.stack is not None:
        raise UsageError(
            f"{what}: the CloudFormation stack {function.stack!r} owns it, and its "
            "next update would revert this change; change it there, choose another "
            "--name, or replace it anyway with --change-runtime"
        )
    if function.is_ours:
        return
    if wanted.is_image:
        state = "it is another container image"
    elif function.runtime in RUNTIMES:
        state = f"it runs {function.runtime} without this runtime's layers"
    else:
        state = f"its runtime is {function.runtime}"
    raise UsageError(
        f"{what}: a function with this name exists that this tool did not create, "
        f"{state}; choose another --name, or replace it with --change-runtime"
    )


def check_package_type(wanted: Wanted, function: FunctionState) -> None:
    """Reject making a zip of an image, or an image of a zip.

    Raises:
        UsageError: AWS fixes which of them a function is when it creates it.
    """
    if (function.package_type == "Image") is wanted.is_image:
        return
    there, asked, advice = "a zip", "an image", "without --image and [image]"
    if not wanted.is_image:
        there, asked, advice = asked, there, "with --image"
    raise UsageError(
        f"Cannot deploy to {wanted.name!r}: that function was created from {there}, "
        f"and Lambda never takes {asked} for it; deploy {advice}, choose another "
        f"--name, or delete it first with `lambda-deno-spawn delete {wanted.name}`"
    )


def code_digests(wanted: Wanted, function: FunctionState) -> tuple[str, str]:
    """Return the digest of the code that a function has, and of that it is to have."""
    if wanted.image is not None:
        return function.image_digest, wanted.image.digest
    return function.code_sha256, base64_digest(wanted.package.sha256)


def shown_digest(digest: str) -> str:
    """Return the first characters of a digest."""
    return digest.removeprefix("sha256:")[:12]


def _settings(
    wanted: Wanted, function: FunctionState | None, role: str
) -> list[_Setting]:
    memory, timeout = wanted.memory_mb, wanted.timeout_s
    if function is None:
        least = MANAGED_MEMORY_MIN_MB if wanted.is_managed else DEFAULT_MEMORY_MB
        memory, timeout = memory or least, timeout or DEFAULT_TIMEOUT_S

    def before(read: Callable[[FunctionState], _Value]) -> _Value | None:
        return None if function is None else read(function)

    # An image has both in it, and Lambda accepts neither for it.
    runtime, handler = wanted.runtime, wanted.handler
    return [
        *(
            []
            if wanted.is_image
            else [
                _Setting("runtime", "Runtime", runtime, before(lambda it: it.runtime)),
                _Setting("handler", "Handler", handler, before(lambda it: it.handler)),
            ]
        ),
        _Setting("role", "Role", role, before(lambda it: it.role)),
        _Setting(
            "memory", "MemorySize", memory, before(lambda it: it.memory_mb), " MB"
        ),
        _Setting("timeout", "Timeout", timeout, before(lambda it: it.timeout_s), " s"),
        _Setting(
            "storage",
            "EphemeralStorage",
            wanted.storage_mb,
            before(lambda it: it.storage_mb),
            " MB",
            is_wrapped=True,
        ),
        _Setting(
            "description",
            "Description",
            wanted.description,
            before(lambda it: it.description),
        ),
    ]


def merged_variables(existing: Mapping[str, str], wanted: Wanted) -> dict[str, str]:
    """Return the wanted variables, merged with the existing ones.

    Raises:
        UsageError: They are larger than Lambda allows.
    """
    kept = {} if wanted.replaces_env else dict(existing)
    if kept.get(WRAPPER) == WRAPPER_PATH:
        del kept[WRAPPER]  # set again below if this runtime needs it
    variables = {**kept, **wanted.variables}
    if wanted.runtime != OS_ONLY and not wanted.is_image:
        variables[WRAPPER] = WRAPPER_PATH
    text = json.dumps(variables, separators=(",", ":"), ensure_ascii=False)
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > ENVIRONMENT_LIMIT_BYTES:
        raise UsageError(
            f"Cannot set the environment variables: they have {size_bytes} bytes "
            f"together, and Lambda accepts {ENVIRONMENT_LIMIT_BYTES}; move values to "
            "Parameter Store or Secrets Manager"
        )
    return variables


def _check_request(given: Mapping[str, Any]) -> None:
    """Reject a request that is too large in botocore's encoding, which is ASCII.

    Raises:
        UsageError: The request is too large.
    """
    size_bytes = len(json.dumps(given, default=str))
    if size_bytes >= REQUEST_LIMIT_BYTES:
        raise UsageError(
            f"Cannot change the configuration: the request has {size_bytes} bytes, and "
            f"Lambda accepts less than {REQUEST_LIMIT_BYTES}, where each character "
            "that is not ASCII counts as 6 or 12; move values of variables to "
            "Parameter Store or Secrets Manager"
        )


def variable_changes(
    before: Mapping[str, str], after: Mapping[str, str]
) -> Iterable[Change]:
    """Return the changed variables, without values that may be secrets."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield Change(
                f"env {name}",
                None if old is None else shown_value(name, old),
                None if new is None else shown_value(name, new),
                loses=new is None,
            )


def _was_edited(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    """Return whether a policy has statements that this tool did not add."""
    if before is None:
        return False
    log = after["Statement"][0]
    return any(
        statement.get("Sid") not in OUR_SIDS
        and statement.get("Action") != log["Action"]
        for statement in before.get("Statement", ())
    ) or not before.get("Statement")


def _is_public(statement: Mapping[str, Any], action: str) -> bool:
    """Return whether a statement allows everyone to call a function by its URL."""
    is_for_all = statement.get("Principal") in ("*", {"AWS": "*"})
    if not is_for_all or statement.get("Action") != action:
        return False
    conditions = json.dumps(statement.get("Condition", {}))
    if action == "lambda:InvokeFunction":
        return "lambda:InvokedViaFunctionUrl" in conditions
    return '"NONE"' in conditions
