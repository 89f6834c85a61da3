"""Changes that break the code on purpose, and the tests that must then fail."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breakage:
    """A change that breaks one behaviour.

    Attributes:
        name: the broken behaviour.
        file: the path of the file, from the root of the project.
        definition: the function, method or class to change, by its qualified name; empty for the module.
        old: text that occurs exactly once in that definition.
        new: its replacement.
        tests: arguments for pytest; at least one of these tests must fail.
        adapters: the adapters that it concerns; none if it concerns the core.
    """

    name: str
    file: str
    definition: str
    old: str
    new: str
    tests: tuple[str, ...]
    adapters: tuple[str, ...] = ()

    def span(self, source: str) -> tuple[int, int]:
        """Find the definition in `source`: the offsets of its first character and of the one after its last.

        Raises:
            LookupError: there is no such definition.
        """
        node: ast.AST = ast.parse(source)
        for name in filter(None, self.definition.split(".")):
            node = _definition(node, name)
        if isinstance(node, ast.Module):
            return 0, len(source)
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        lines = source.splitlines(keepends=True)
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return len("".join(lines[: first - 1])), len("".join(lines[: node.end_lineno]))

    def apply(self, source: str) -> str:
        """Return `source` with the change.

        Raises:
            LookupError: the definition does not exist, or does not contain `old` exactly once.
        """
        start, end = self.span(source)
        definition = source[start:end]
        if definition.count(self.old) != 1:
            raise LookupError(f"{self.name}: {self.definition or self.file} must contain the text to replace once")
        return source[:start] + definition.replace(self.old, self.new) + source[end:]


def _definition(node: ast.AST, name: str) -> ast.AST:
    for child in _definitions(node):
        if child.name == name:
            return child
    raise LookupError(f"there is no definition {name}")


def _definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield the definitions directly within `node`, also those within its `if`, `with` and `try` statements."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
        else:
            yield from _definitions(child)


CANONICAL = "envoyou_core/reception/canonical.py"
SIGNATURE = "envoyou_core/reception/signature.py"
VERIFICATION = "envoyou_core/reception/verification.py"
RECEPTION = "envoyou_core/reception/receiver.py"
SECRETS = "envoyou_core/reception/secrets.py"
SECRET_ANSWERS = "envoyou_core/reception/secret_cache.py"
SECRET_TEXT = "envoyou_core/reception/secret_text.py"
SPOOL_RELAY = "envoyou_core/spool/relay.py"
SQL = "envoyou_core/inbox/sql/inbox.py"
ATTEMPT = "envoyou_core/worker/attempt.py"
TRANSITIONS = "envoyou_core/inbox/transitions.py"
ENGINE = "envoyou_core/worker/engine.py"
SELECTION = "envoyou_core/worker/claim_plan.py"
WSGI = "envoyou_core/wsgi.py"
BODIES = "envoyou_core/unreadable_bodies.py"
LOGS = "envoyou_core/observability/logs.py"

TEST_SECRETS = "tests/core/test_secrets.py"
TEST_SECRET_ANSWERS = "tests/core/test_secret_cache.py"
TEST_SIGNATURE = "tests/core/test_signature.py"
TEST_VERIFICATION = "tests/core/test_verification.py"
TEST_RECEPTION = "tests/core/test_reception.py"
TEST_SPOOL = "tests/core/test_spool.py"
TEST_ENGINE = "tests/core/test_engine.py"
TEST_SELECTION = "tests/core/test_claim_plan.py"
TEST_SQLITE_INBOX = "tests/core/test_inboxes.py::TestSqliteInbox"
TEST_SQL = "tests/core/test_sql_inbox.py"
TEST_GATEWAYS = "tests/core/test_gateways.py"
TEST_OBSERVABILITY = "tests/core/test_observability.py"
TEST_REDACTION = "tests/core/test_redaction.py"

BREAKAGES = [
    # Tests of users
    Breakage(
        "a delivery of a test hides what a handler raises",
        "envoyou_core/testing/kit.py",
        "Deliver.__call__",
        "raise_errors=raise_errors)",
        "raise_errors=False)",
        ("tests/core/test_isolation.py::test_what_a_handler_raises_is_raised_where_the_test_delivers",),
    ),
    Breakage(
        "a test handles the events of the application's own inbox",
        "envoyou_core/isolation.py",
        "Isolation.isolated",
        "if not self.keeps_inbox_in_tests:",
        "if False:",
        ("tests/core/test_isolation.py::test_the_applications_inbox_is_neither_read_nor_written",),
    ),
    Breakage(
        "a worker runs beside a test",
        "envoyou_core/isolation.py",
        "Isolation.isolated",
        'handoff="manual"',
        'handoff="auto"',
        ("tests/core/test_isolation.py::test_no_worker_and_no_function_learns_of_an_event",),
    ),
    Breakage(
        "a traceback is logged twice",
        "envoyou_core/observability/attempt_notices.py",
        "Settled.failure",
        " and not self.is_reported",
        "",
        (
            "tests/core/test_observability.py::test_the_traceback_of_a_handler_that_is_not_the_last_one_is_logged_once_as_well",
        ),
    ),
    # Processes without handlers
    Breakage(
        "a worker without handlers sets events aside",
        "envoyou_core/worker/worker.py",
        "Worker._claim_if_due",
        "        if not self._engine.has_handlers:",
        "        if False:",
        ("tests/core/test_worker.py::test_without_handlers_events_are_stored_and_that_is_reported_once",),
    ),
    Breakage(
        "a drain without handlers sets events aside",
        "envoyou_core/worker/drain.py",
        "_handle_due",
        "    if not engine.has_handlers:",
        "    if False:",
        ("tests/core/test_handlers_elsewhere.py::test_a_process_without_any_handler_takes_no_event_and_ignores_none",),
    ),
    # Bodies that cannot be read
    Breakage(
        "the exceptions of a server pass through",
        WSGI,
        "CheckedInput._checked",
        "        except Exception as error:\n            raise as_body_error(error) from None",
        "        except OSError as error:\n            raise as_body_error(error) from None",
        (f"{TEST_GATEWAYS}::test_wsgi_answers_if_the_server_cannot_read_the_body",),
    ),
    Breakage(
        "a body that ends early is taken for a whole one",
        WSGI,
        "_read",
        "    if length is not None and 0 < len(body) < length:",
        "    if length is None:",
        (f"{TEST_GATEWAYS}::test_wsgi_recognises_a_sender_that_disconnected",),
    ),
    Breakage(
        "the cause of a wrapped exception is ignored",
        BODIES,
        "as_body_error",
        "    *_, cause = _causes(error)",
        "    cause, *_ = _causes(error)",
        (f"{TEST_GATEWAYS}::test_asgi_answers_if_the_server_cannot_read_the_body",),
    ),
    # The log
    Breakage(
        "a sender can forge a line of the log",
        "envoyou_core/observability/redacted.py",
        "_clean",
        "repr(one_line(value.text[:MAX_QUOTED]))",
        "value.text",
        (f"{TEST_OBSERVABILITY}::test_text_from_a_sender_cannot_pass_for_another_line",),
    ),
    Breakage(
        "a worker says nothing of a disabled logger",
        "envoyou_core/worker/worker.py",
        "Worker.run",
        "            report_disabled_loggers()\n",
        "",
        (f"{TEST_OBSERVABILITY}::test_a_worker_reports_disabled_loggers_on_standard_error",),
    ),
    # Authentication
    Breakage(
        "the signature is not compared",
        SIGNATURE,
        "is_signed",
        "if hmac.compare_digest(key.signature(timestamp, content).encode(), signature):",
        "if key.signature(timestamp, content):",
        (f"{TEST_VERIFICATION}::test_another_secret_body_or_timestamp_is_refused",),
    ),
    Breakage(
        "the signature is compared but for its end",
        SIGNATURE,
        "is_signed",
        "hmac.compare_digest(key.signature(timestamp, content).encode(), signature)",
        "hmac.compare_digest(key.signature(timestamp, content)[:20].encode(), signature[:20])",
        (f"{TEST_SIGNATURE}::test_one_flipped_bit_anywhere_is_refused",),
    ),
    Breakage(
        "the fast path accepts deliveries of any age",
        VERIFICATION,
        "VerificationPolicy.verify",
        "and abs(now - int(digits)) <= self.tolerance",
        "",
        (f"{TEST_VERIFICATION}::test_the_spelling_of_headers_changes_no_decision",),
    ),
    Breakage(
        "the timestamp is not signed",
        SIGNATURE,
        "SigningKey.signature",
        'inner.update(timestamp + b".")',
        'inner.update(b".")',
        (TEST_SIGNATURE,),
    ),
    Breakage(
        "the tolerance holds for the past alone",
        SIGNATURE,
        "check_timestamp",
        "if abs(now - int(timestamp)) > tolerance:",
        "if now - int(timestamp) > tolerance:",
        (f"{TEST_VERIFICATION}::test_outside_the_tolerance",),
    ),
    Breakage(
        "the tolerance holds for the future alone",
        SIGNATURE,
        "check_timestamp",
        "if abs(now - int(timestamp)) > tolerance:",
        "if int(timestamp) - now > tolerance:",
        (f"{TEST_VERIFICATION}::test_outside_the_tolerance",),
    ),
    Breakage(
        "the tolerance is ignored",
        SIGNATURE,
        "check_timestamp",
        "if abs(now - int(timestamp)) > tolerance:",
        "if abs(now - int(timestamp)) > 1e12:",
        (f"{TEST_VERIFICATION}::test_outside_the_tolerance",),
    ),
    Breakage(
        "anything that int() takes is a timestamp",
        SIGNATURE,
        "check_timestamp",
        "if not timestamp.isdigit() or len(timestamp) > MAX_TIMESTAMP_DIGITS:",
        "if not timestamp.strip():",
        (f"{TEST_SIGNATURE}::test_a_timestamp_must_be_one_to_twelve_ascii_digits",),
    ),
    Breakage(
        "an empty secret is accepted",
        SIGNATURE,
        "SigningKey.__init__",
        "if not secret.strip():",
        "if secret is None:",
        (f"{TEST_SIGNATURE}::test_an_empty_or_unusable_secret_is_a_configuration_error",),
    ),
    Breakage(
        "the unsigned webhook id names the tenant",
        SECRETS,
        "LookedUpSecrets._look_up",
        "return _keys_of_answer((yield from _call(self._function, webhook_id)))",
        "keys = _keys_of_answer((yield from _call(self._function, webhook_id)))\n"
        "            return keys and Keys(webhook_id, keys.keys)",
        (f"{TEST_SECRETS}::test_changed_unsigned_headers_never_run_a_handler_again",),
    ),
    Breakage(
        "the tenant is a fingerprint of the newest secret",
        SECRETS,
        "_keys_of_answer",
        "keys[-1].fingerprint()",
        "keys[0].fingerprint()",
        (f"{TEST_SECRETS}::test_a_redelivery_after_each_step_of_a_rotation_is_a_duplicate",),
    ),
    Breakage(
        "endpoints of a mapping may group a secret without a tenant",
        SECRETS,
        "MappedSecrets.__init__",
        "if owners.setdefault(key.fingerprint(), keys.tenant) != keys.tenant:",
        "if owners.setdefault(key.fingerprint(), '') is None:",
        (f"{TEST_SECRETS}::test_an_invalid_mapping_is_a_configuration_error",),
    ),
    Breakage(
        "a row's columns are taken as secrets",
        SECRETS,
        "_strict_keys",
        "    if not isinstance(secret, str | bytes | list):\n",
        "    if isinstance(secret, tuple):\n        secret = list(secret)\n"
        "    if not isinstance(secret, str | bytes | list):\n",
        (f"{TEST_SECRETS}::test_an_invalid_answer_of_a_callable_is_unavailable",),
    ),
    Breakage(
        "a secret may have white space around it",
        SECRET_TEXT,
        "check_secret_text",
        "if character.isspace() or _is_quote(character):",
        "if _is_quote(character):",
        (f"{TEST_SECRETS}::test_white_space_quotes_and_invisible_characters_are_named",),
    ),
    Breakage(
        "invented webhook ids displace real ones from memory",
        SECRET_ANSWERS,
        "AnswerCache._remember",
        "answers = self._unknown if answer.value is None else self._known",
        "answers = self._known",
        (f"{TEST_SECRET_ANSWERS}::test_the_cache_is_bounded_and_invented_ids_do_not_evict_real_ones",),
    ),
    Breakage(
        "a request that waits for a request-up can cancel it for the others",
        SECRET_ANSWERS,
        "AnswerCache.find",
        "own.set_running_or_notify_cancel()",
        "own.running()",
        (f"{TEST_SECRET_ANSWERS}::test_concurrent_tasks_share_one_look_up",),
    ),
    Breakage(
        "the canonical form vouches for members named twice",
        CANONICAL,
        "_convert",
        'if b"\\\\u003" in body or body.count(b":") != canonical.count(b":"):',
        'if b"\\\\u003" in body and body.count(b":") != canonical.count(b":"):',
        (f"{TEST_SIGNATURE}::test_a_canonical_signature_is_refused_if_two_members_have_the_same_name",),
    ),
    Breakage(
        "the canonical form of a large body vouches for members named twice",
        CANONICAL,
        "_Builder._add_string",
        "if self._name in self._members:",
        "if self._name is self._members:",
        (f"{TEST_SIGNATURE}::test_a_canonical_signature_is_refused_if_two_members_have_the_same_name",),
    ),
    Breakage(
        "a large body is parsed in the thread of the request before it is proven",
        RECEPTION,
        "Receiver._check_canonical",
        "if size <= SMALL_BODY:",
        "if size >= SMALL_BODY:",
        ("tests/core/test_unsigned_cost.py",),
    ),
    Breakage(
        "half of a surrogate pair in a name beside the id loses the event",
        "envoyou_core/event.py",
        "_parse_leniently",
        'envelope = msgspec.convert({**members, "data": {"object": msgspec.Raw()}}, _Envelope)',
        'envelope = msgspec.convert({**document, **members, "data": {"object": msgspec.Raw()}}, _Envelope)',
        ("tests/core/test_hostile_payloads.py",),
    ),
    Breakage(
        "an error of a type shows what was sent",
        "envoyou_core/object_types.py",
        "_describe_msgspec_error",
        'problem = "Invalid enum value"',
        "problem = str(error)",
        ("tests/core/test_hostile_payloads.py::test_an_error_names_the_field_and_contains_no_data",),
    ),
    Breakage(
        "an event type header that contradicts the body is accepted",
        VERIFICATION,
        "VerificationPolicy.read_event",
        "if request.event_type and request.event_type != event.type.encode():",
        "if not request.event_type and event.type is None:",
        (f"{TEST_VERIFICATION}::test_an_event_type_header_that_contradicts_the_body",),
    ),
    Breakage(
        "a webhook id header that contradicts the body is accepted",
        VERIFICATION,
        "VerificationPolicy.read_event",
        "if request.webhook_id and event.webhook_id is not None and request.webhook_id != event.webhook_id.encode():",
        "if not request.webhook_id and event.webhook_id == '?':",
        (f"{TEST_VERIFICATION}::test_a_webhook_id_header_that_contradicts_the_body",),
    ),
    Breakage(
        "a required custom header is not checked",
        RECEPTION,
        "Receiver.receive",
        "self.endpoint_headers.check(request)",
        "self.endpoint_headers.keep(request)",
        ("tests/core/test_endpoint_headers.py::test_the_reason_of_a_refusal_names_the_header_and_no_value",),
    ),
    # The client of the management API
    Breakage(
        "a creation whose outcome is unknown is repeated",
        "envoyou_core/client/policy.py",
        "exchange",
        "is_safe = operation.is_idempotent or not failure.may_be_done",
        "is_safe = True",
        ("tests/client/test_calls.py::test_a_failure_of_the_platform_is_repeated_unless_it_may_create_twice",),
    ),
    Breakage(
        "a redirect gets the API key",
        "envoyou_core/client/transports.py",
        "BlockingTransport._exchange",
        "follow_redirects=False",
        "follow_redirects=True",
        ("tests/client/test_odd_answers.py::test_no_redirect_is_followed",),
    ),
    # The tools of the command line
    Breakage(
        "a capture contains the value of a secret header",
        "envoyou_core/reception/captures.py",
        "CaptureDirectory._shown",
        "if is_shown and key not in self._secret_headers else REMOVED",
        "if is_shown or key in self._secret_headers else REMOVED",
        ("tests/contract/test_captures.py",),
    ),
    Breakage(
        "captures fill the disk",
        "envoyou_core/reception/captures.py",
        "CaptureDirectory.write",
        "captures[:-MAX_CAPTURES]",
        "captures[:0]",
        ("tests/core/test_captures.py::test_the_newest_are_kept_and_other_files_are_left_alone",),
    ),
    Breakage(
        "the write that is tried stays in the inbox",
        "envoyou_core/inbox/sql/inbox.py",
        "SqlInbox.try_write",
        "            raise _RolledBackError\n",
        "",
        ("tests/core/test_health.py::test_ready_writes_and_leaves_nothing",),
    ),
    Breakage(
        "a proxy that changes bodies is not found",
        "envoyou_core/doctor/endpoint/passage.py",
        "_body_finding",
        "passage.deliver(ODD)",
        "passage.deliver(PLAIN)",
        ("tests/core/test_doctor_url.py::test_a_proxy_that_changes_bodies",),
    ),
    Breakage(
        "each probe asks the database",
        "envoyou_core/health/shared_check.py",
        "SharedCheck._is_usable",
        "not run.future.done() or",
        "False and",
        ("tests/core/test_health.py::test_probes_share_one_check_and_its_result_is_used_again_for_a_while",),
    ),
    Breakage(
        "a process with a spool is not ready while the inbox is down",
        "envoyou_core/health/reports.py",
        "ready",
        "StoreState.OK in (inbox, spool)",
        "inbox is StoreState.OK",
        ("tests/core/test_health.py::test_a_spool_keeps_a_process_ready_while_the_inbox_is_down",),
    ),
    Breakage(
        "a forgery that is accepted is a success",
        "envoyou_core/cli/trigger.py",
        "trigger",
        "expected=401 if bad_signature else 200",
        "expected=200",
        ("tests/core/test_trigger.py::test_a_bad_signature_that_is_accepted_is_an_error",),
    ),
    Breakage(
        "webhooks that the file does not declare are deleted",
        "envoyou_core/cli/sync.py",
        "plan",
        "    if prune:",
        "    if existing:",
        ("tests/client/test_sync.py::test_others_are_deleted_only_with_prune",),
    ),
    Breakage(
        "members of the retry policy that the file does not declare are reset",
        "envoyou_core/cli/sync.py",
        "_update",
        "replace(policy, **declaration.retry_policy)",
        "DeliveryRetryPolicy(**declaration.retry_policy)",
        ("tests/client/test_sync.py::test_check_shows_the_difference_and_changes_nothing",),
    ),
    # Acceptance
    Breakage(
        "200 before the commit",
        RECEPTION,
        "_add",
        "added: Added = yield Wait(inbox.add(entry), deadline)",
        "added = Added.NEW if inbox.add(entry) and deadline else Added.DUPLICATE",
        (f"{TEST_RECEPTION}::test_the_response_waits_for_the_commit", TEST_RECEPTION),
    ),
    Breakage(
        "the nonce is bound before the commit",
        RECEPTION,
        "Receiver._store",
        "        entry = self._entry(event, tenant, request, traceparent)\n",
        "        entry = self._entry(event, tenant, request, traceparent)\n"
        "        if key is not None:\n"
        "            self._ask_nonces(partial(nonces.bind, key, event.id, NONCE_LIFETIME))\n",
        (f"{TEST_RECEPTION}::test_a_nonce_is_bound_only_after_the_event_is_stored",),
    ),
    Breakage(
        "a nonce bound to another event is accepted",
        RECEPTION,
        "Receiver._store",
        "not in {None, event.id}:",
        "in {False}:",
        (f"{TEST_RECEPTION}::test_a_nonce_bound_to_another_event_is_refused",),
    ),
    Breakage(
        "the answer tells why the event could not be stored",
        "envoyou_core/errors.py",
        "UnavailableError.public_message",
        "return UnavailableError.default_message",
        "return str(self)",
        (f"{TEST_RECEPTION}::test_a_failing_inbox_is_answered_503_without_the_reason",),
    ),
    # The spool
    Breakage(
        "an event leaves the spool before it is in the inbox",
        SPOOL_RELAY,
        "SpoolRelay._move_batch",
        "self._conclude(state, outcomes)",
        "self.spool.remove(readable)",
        (f"{TEST_SPOOL}::test_moved_events_are_deleted_from_the_spool",),
    ),
    Breakage(
        "the time of the move is the time of the event",
        SPOOL_RELAY,
        "SpoolRelay._add",
        "claim.received_at,",
        "None,",
        (f"{TEST_SPOOL}::test_a_moved_event_keeps_all_its_data",),
    ),
    Breakage(
        "every request waits for an inbox that is down",
        RECEPTION,
        "Receiver._add_to_inbox_or_spool",
        "if relay.inbox_is_down:",
        "if not relay:",
        (f"{TEST_SPOOL}::test_no_request_waits_for_an_inbox_that_is_down",),
    ),
    Breakage(
        "a relay that was too slow removes what another holds",
        "envoyou_core/spool/spool.py",
        "Spool.remove",
        "delete(inbox_table).where(IS_HELD)",
        'delete(inbox_table).where(_t.key == bindparam("held_key"))',
        (f"{TEST_SPOOL}::test_a_slow_relay_does_not_delete_an_event_that_another_relay_has_leased",),
    ),
    # The inbox
    Breakage(
        "request, then insert",
        SQL,
        "SqlInbox._store",
        """        with self._accepting() as connection:
            registry.write(connection, self.name, registration)
            new = acceptance.insert_new(connection, rows)
""",
        """        with self._reading() as connection:
            known = {tuple(row) for row in connection.execute(select(_t.tenant, _t.event_id))}
        rows = [row for row in rows if (row["tenant"], row["event_id"]) not in known]
        new = {(row["tenant"], row["event_id"]) for row in rows}
        with self._writing() as connection:
            if rows:
                connection.execute(inbox_table.insert(), rows)
""",
        (f"{TEST_SQL}::test_an_event_that_another_stores_at_the_last_moment_is_a_duplicate[sqlite]",),
    ),
    Breakage(
        "every delivery of one batch is the new one",
        "envoyou_core/inbox/sql/acceptance.py",
        "resolve",
        "            remaining.remove(key)\n",
        "",
        (f"{TEST_SQLITE_INBOX}::test_deliveries_that_were_not_waited_for_are_told_apart_too",),
    ),
    Breakage(
        "an event that is refused fails those beside it",
        "envoyou_core/inbox/group_commit.py",
        "GroupCommit._settle",
        "if len(batch) == 1 or self._is_outage(error):",
        "if batch:",
        ("tests/core/test_group_commit.py::test_an_item_that_is_refused_fails_alone",),
    ),
    Breakage(
        "who gave up waiting is stored all the same",
        "envoyou_core/inbox/group_commit.py",
        "GroupCommit._write",
        "if future.set_running_or_notify_cancel()])",
        "])",
        ("tests/core/test_group_commit.py::test_who_gave_up_waiting_is_not_stored",),
    ),
    Breakage(
        "renewing, recording and settling without the lease token",
        "envoyou_core/inbox/sql/claims.py",
        "",
        'and_(_t.key == bindparam("held_key"), _t.lease_token == bindparam("held_token"))',
        'and_(_t.key == bindparam("held_key"), bindparam("held_token") != "")',
        (f"{TEST_SQLITE_INBOX}::test_a_lost_lease_can_neither_renew_nor_record_nor_settle",),
    ),
    Breakage(
        "a crash is not counted",
        "envoyou_core/inbox/sql/leasing.py",
        "",
        "_t.crashes + case((_IS_TAKEOVER, 1), else_=0)",
        "_t.crashes + case((_IS_TAKEOVER, 0), else_=0)",
        (f"{TEST_SQLITE_INBOX}::test_a_lease_that_runs_out_lets_another_take_the_event_and_counts_a_crash",),
    ),
    Breakage(
        "the same id with another body goes unnoticed",
        TRANSITIONS,
        "compare_redelivery",
        "return Added.DUPLICATE if stored is None or stored == body else Added.BODY_DIFFERS",
        "return Added.DUPLICATE",
        (f"{TEST_SQLITE_INBOX}::test_a_second_delivery_with_another_body_is_told_apart_and_changes_nothing",),
    ),
    Breakage(
        "names group their events",
        "envoyou_core/inbox/sql/claims.py",
        "due",
        "conditions = [_t.name == name, _t.due_at.is_not(None), _t.due_at <= NOW]",
        "conditions = [_t.due_at.is_not(None), _t.due_at <= NOW]",
        (f"{TEST_SQLITE_INBOX}::test_another_name_is_another_inbox",),
    ),
    Breakage(
        "others may read the file of an inbox",
        "envoyou_core/inbox/files.py",
        "",
        "OWNER_ONLY = 0o600",
        "OWNER_ONLY = 0o644",
        ("tests/core/test_sqlite_files.py::test_a_new_file_is_readable_by_its_owner_only",),
    ),
    Breakage(
        "every application defines the notices at its start",
        "envoyou_core/lifecycle.py",
        "",
        "from envoyou_core import observability\n",
        "from envoyou_core import observability\nfrom envoyou_core.observability import NoSpool\n",
        ("tests/core/test_laws.py::test_an_application_loads_no_notice_no_worker_and_no_inbox_before_it_needs_them",),
    ),
    Breakage(
        "a worker in another working directory creates an empty inbox",
        "envoyou_core/lifecycle.py",
        "Lifecycle.run_worker",
        "            refuse_creation(store, at_absolute_path=False)\n",
        "            pass\n",
        ("tests/core/test_sqlite_files.py",),
    ),
    Breakage(
        "statements are prepared on the server",
        "envoyou_core/inbox/sql/engines.py",
        "",
        '"prepare_threshold": None,',
        '"prepare_threshold": 5,',
        ("tests/core/test_pgbouncer.py",),
    ),
    Breakage(
        "an error repeats a part of the inbox's URL",
        "envoyou_core/inbox/urls.py",
        "_parse",
        """        raise ConfigurationError(
            f"the port in the {kind}'s URL must be a number. Special""",
        """        raise ConfigurationError(
            f"the port in the {kind}'s URL {text} must be a number. Special""",
        ("tests/core/test_database_urls.py",),
    ),
    Breakage(
        "SQLite may lose the last commits at a power cut",
        "envoyou_core/inbox/sql/engines.py",
        "_prepare_sqlite",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
        (f"{TEST_SQL}::test_sqlite_survives_a_power_cut_and_waits_for_locks",),
    ),
    Breakage(
        "pruning takes what was settled just now",
        "envoyou_core/inbox/sql/records.py",
        "SqlRecords._settled_before",
        "_t.settled_at < before)",
        "_t.settled_at != before)",
        (f"{TEST_SQLITE_INBOX}::test_age_counts_from_the_settling_not_from_the_arrival", TEST_SQLITE_INBOX),
    ),
    # Processing
    Breakage(
        "nothing is tried again",
        ATTEMPT,
        "RunningAttempt._retried",
        "if self.number >= max_attempts:",
        "if self.number >= 1:",
        (f"{TEST_ENGINE}::test_failed_event_is_retried_by_the_default_policy_and_then_dead",),
    ),
    Breakage(
        "a retry runs what has succeeded again",
        ATTEMPT,
        "RunningAttempt.unfinished",
        "return [handler for handler in self.handlers if handler.status_in(self.progress) is None]",
        "return list(self.handlers)",
        (f"{TEST_ENGINE}::test_a_retry_runs_only_what_has_not_succeeded",),
    ),
    Breakage(
        "crashes never end",
        ENGINE,
        "Engine.run_handlers",
        "if claim.crashes >= self.retry.max_crashes:",
        "if claim.crashes < 0:",
        (f"{TEST_ENGINE}::test_event_is_dead_after_too_many_crashes",),
    ),
    Breakage(
        "handlers in the order of a set",
        "envoyou_core/handlers.py",
        "Handlers.matching",
        "return [handler for handler in self if handler.matches(event_type)]",
        "return list({handler for handler in self if handler.matches(event_type)})",
        (f"{TEST_ENGINE}::test_handlers_run_in_the_order_of_registration",),
    ),
    Breakage(
        "no order is kept",
        SELECTION,
        "plan_claims",
        "ordered = ordered_patterns(handlers)",
        "ordered = ()",
        (f"{TEST_ENGINE}::test_event_waiting_for_a_retry_holds_back_later_ones",),
    ),
    Breakage(
        "what is claimed is not counted against the handlers' limits",
        SELECTION,
        "plan_claims",
        "capacity[name] -= len(claims)",
        "capacity[name] -= 0",
        (f"{TEST_SELECTION}::test_event_counts_against_each_limited_handler_that_matches",),
    ),
    Breakage(
        "what needs two handlers at once starves",
        SELECTION,
        "plan_claims",
        "if order.is_starving(group):",
        "if free < 0:",
        (f"{TEST_SELECTION}::test_group_that_needs_two_handlers_gets_reserved_capacity",),
    ),
    Breakage(
        "what is paused is claimed",
        SELECTION,
        "plan_claims",
        "(*group.exclude, *paused)",
        "group.exclude",
        ("tests/core/test_pauses.py::test_a_paused_type_waits_and_others_go_on",),
    ),
    Breakage(
        "an event of the same second is too late",
        ENGINE,
        "Engine._is_stale",
        "attempt.claim.event.created < newest",
        "attempt.claim.event.created <= newest",
        (f"{TEST_ENGINE}::test_event_that_is_not_older_or_about_another_object_is_handled",),
    ),
    Breakage(
        "the last handler's transaction settles what another has failed at",
        ATTEMPT,
        "RunningAttempt.has_failures",
        "return bool(self.errors) or HandlerStatus.GIVEN_UP in",
        "return HandlerStatus.GIVEN_UP in",
        (f"{TEST_ENGINE}::test_transaction_does_not_settle_if_an_earlier_handler_failed",),
    ),
    Breakage(
        "tracebacks tell secrets",
        "envoyou_core/worker/failures.py",
        "traceback_of",
        "shown = redact(printable(",
        "shown = str(printable(",
        ("tests/core/test_failures.py::test_a_secret_is_redacted_in_any_context",),
    ),
    Breakage(
        "a message shows values of the event's payload",
        "envoyou_core/worker/failures.py",
        "private_texts",
        "    return frozenset(values.union(",
        "    return frozenset(texts.intersection(",
        (f"{TEST_REDACTION}::test_a_failing_handler_writes_nothing_private_to_the_log_or_the_inbox",),
    ),
    Breakage(
        "a line of an exception can pass for a record of the log",
        "envoyou_core/observability/redacted.py",
        "RedactedLogger.log",
        '"\\n".join(INDENT + line for line in traceback.splitlines())',
        "traceback",
        (f"{TEST_REDACTION}::test_the_text_of_an_exception_cannot_forge_a_line_of_the_log",),
    ),
    Breakage(
        "the log shows the arguments of a record as they are",
        "envoyou_core/observability/redacted.py",
        "_clean",
        "clean = one_line(text)",
        "clean = text",
        (f"{TEST_REDACTION}::test_the_texts_of_a_notice_stay_on_one_line",),
    ),
    Breakage(
        "the data of a record is not redacted",
        "envoyou_core/observability/redacted.py",
        "RedactedLogger.log",
        "name: _clean_values(data, known) if",
        "name: dict(data) if",
        (f"{TEST_OBSERVABILITY}::test_the_data_of_a_record_is_redacted_and_cut",),
    ),
    Breakage(
        "the signing secret of this process is not looked for",
        "envoyou_core/reception/signature.py",
        "SigningKey.__init__",
        "        remember_secret(key)\n",
        "",
        (f"{TEST_REDACTION}::test_the_signing_secret_of_this_process_is_removed_in_every_spelling",),
    ),
    Breakage(
        "the page of an event shows its payload without a bound",
        "envoyou_core/payloads.py",
        "_Printer.print",
        "if size > MAX_SIZE:",
        "if size > 1_000 * MAX_SIZE:",
        ("tests/django/test_admin.py::test_a_page_is_small_however_large_or_deep_its_payload_is",),
        adapters=("django",),
    ),
    Breakage(
        "a drain waits for what is paused",
        "envoyou_core/worker/drain.py",
        "_becomes_due",
        " or not matches_any(paused, record.event.type)",
        " or paused",
        ("tests/core/test_pauses.py::test_drain_does_not_wait_for_a_distant_retry_of_a_paused_event",),
    ),
    Breakage(
        "a lease is never renewed",
        "envoyou_core/worker/leases.py",
        "LeaseKeeper._renew",
        "self._engine.renew(held)",
        "held.clear()",
        (f"{TEST_ENGINE}::test_the_lease_is_kept_while_a_drained_handler_runs_on",),
    ),
    Breakage(
        "a worker takes over what it holds itself after an outage",
        "envoyou_core/worker/inbox_access.py",
        "InboxAccess._spare_late_leases",
        "        self.late_leases.renew()\n",
        "",
        ("tests/core/test_late_leases.py::test_nor_if_only_its_renewals_were_late",),
    ),
    Breakage(
        "a crash that was none stays counted",
        "envoyou_core/worker/engine.py",
        "Engine.report",
        "                yield self._inbox_call(partial(self.inbox.uncount_crash, attempt.claim))\n",
        "                pass\n",
        ("tests/core/test_late_leases.py::test_a_process_that_was_cut_off_alone_takes_the_crash_back[sqlite]",),
    ),
    Breakage(
        "what a killed process was moving from the spool waits for its lease",
        "envoyou_core/spool/relay.py",
        "SpoolRelay._wait_for_leases",
        "        if self._recovery.is_due:\n",
        "        if False:\n",
        (f"{TEST_SPOOL}::test_what_a_killed_process_had_leased_is_moved_at_once",),
    ),
    Breakage(
        "a worker that stops forgets what it had done",
        "envoyou_core/worker/worker.py",
        "Worker._run_on_loop",
        "self._return_to_inbox([replace(claim, progress=attempt.progress, owed=attempt.owed())])",
        "self._return_to_inbox([claim])",
        ("tests/core/test_worker.py::test_handlers_done_in_a_returned_attempt_do_not_run_again",),
    ),
    # Order, limits, retention
    Breakage(
        "events of one object overtake one another",
        "envoyou_core/inbox/sql/claims.py",
        "_is_held_back",
        "or_(and_(earlier, in_line), in_work),",
        "in_work,",
        (f"{TEST_SQLITE_INBOX}::test_a_failed_event_holds_those_behind_it_until_it_is_finished",),
    ),
    Breakage(
        "what waits in a worker is not held",
        "envoyou_core/worker/worker.py",
        "Worker._accept",
        "        self._leases.hold(*accepted)\n",
        "",
        ("tests/core/test_worker.py::test_leases_of_queued_events_are_renewed",),
    ),
    Breakage(
        "leases are not renewed",
        "envoyou_core/worker/leases.py",
        "LeaseKeeper._renew",
        "            self._engine.renew(held)\n",
        "            pass\n",
        ("tests/core/test_worker.py::test_lease_is_renewed_while_a_handler_runs",),
    ),
    Breakage(
        "the nudge is sent within the request",
        "envoyou_core/worker/waker.py",
        "Waker.send",
        "            self._waiting.put_nowait(event_id)\n",
        "            self._function(event_id)\n",
        (
            "tests/core/test_waker.py::test_unresponsive_broker_does_not_delay_requests",
            "tests/core/test_waker.py::test_eager_broker_works_outside_the_request",
        ),
    ),
    Breakage(
        "an event that stays due hides the retries behind it",
        "envoyou_core/worker/due_timer.py",
        "ReadPlan.next_read",
        "self._reads_all = self._announced_until is None or now >= self._reads_all_at",
        "self._reads_all = True",
        ("tests/core/test_due_timer.py::test_an_event_that_stays_due_hides_no_other",),
    ),
    Breakage(
        "what a killed task held is not announced",
        "envoyou_core/worker/due_timer.py",
        "DueTimer._read",
        "and self._recover()",
        "and False",
        ("tests/core/test_due_timer.py::test_what_they_held_is_announced",),
    ),
    Breakage(
        "a handler that was dropped runs after the next requeue",
        "envoyou_core/inbox/records.py",
        "completed_handlers",
        "{HandlerStatus.DONE, HandlerStatus.DROPPED}",
        "{HandlerStatus.DONE}",
        ("tests/core/test_inboxes.py::TestMemoryInbox::test_a_handler_that_is_dropped_is_not_owed_any_more",),
    ),
    Breakage(
        "the success of one of two handlers of a name counts for both",
        "envoyou_core/handler.py",
        "Handler.names_in",
        "if mentioned and",
        "if False and",
        ("tests/core/test_handler_names.py::test_a_process_with_one_of_them_runs_it_and_leaves_the_other",),
    ),
    Breakage(
        "each attempt is settled by a commit of its own",
        "envoyou_core/worker/settling.py",
        "Settler.settle",
        "self._commits.submit((attempt.claim, attempt.settlement))",
        "self._inbox_thread.submit(partial(self._engine.settle, attempt.claim, attempt.settlement))",
        ("tests/core/test_worker.py::test_attempts_that_end_at_the_same_time_are_settled_by_one_commit",),
    ),
    Breakage(
        "the bytes that came are written anew",
        TRANSITIONS,
        "describe",
        '"body": event.body,',
        '"body": event.body.strip(),',
        (f"{TEST_SQLITE_INBOX}::test_the_event_comes_back_byte_for_byte",),
    ),
    Breakage(
        "pruning forgets how new an object was",
        TRANSITIONS,
        "watermarks",
        "if object_key and isinstance(created, int):",
        "if not object_key and isinstance(created, int):",
        (TEST_SQLITE_INBOX,),
    ),
    Breakage(
        "a genuine delivery that is rejected is lost",
        RECEPTION,
        "Receiver.receive",
        "kept = yield from self._keep(request, tenant, now, error)",
        "kept = False",
        ("tests/core/test_rejected.py::test_a_genuine_delivery_that_is_answered_400_is_kept",),
    ),
    Breakage(
        "a rejected delivery is kept before it is proven",
        RECEPTION,
        "Receiver.receive",
        "tenant = yield from self._authenticate(request, now)",
        'tenant = ""',
        ("tests/core/test_rejected.py::test_nothing_unproven_is_kept",),
    ),
    Breakage(
        "a retry of a rejected delivery checks its timestamp against now",
        RECEPTION,
        "Receiver.retry",
        "(request, rejected.received_at.timestamp())",
        "(request, self.clock())",
        ("tests/core/test_rejected.py::test_other_settings_accept_it_as_of_the_time_at_which_it_came",),
    ),
    Breakage(
        "a call of the inbox waits for the lock of its own handler",
        "envoyou_core/inbox/sql/database.py",
        "SqlDatabase._writing",
        "joining.connection_for_writing(self._lock_domain)",
        "None",
        ("tests/core/test_transactions.py::test_on_sqlite_it_is_undone_with_the_handler_that_fails",),
    ),
    Breakage(
        "SQLite transactions begin by reading",
        "envoyou_core/inbox/sql/engines.py",
        "_begin_immediately",
        'driver.execute("BEGIN IMMEDIATE")',
        'driver.execute("BEGIN")',
        (f"{TEST_SQL}::test_every_writing_transaction_on_sqlite_asks_for_the_lock_first",),
    ),
    # What bites a durable inbox: see pitfalls.py
    Breakage(
        "the nudge comes before the commit",
        RECEPTION,
        "Receiver.receive",
        "            added = yield from self._store(event, tenant, request)\n",
        "            self.wake(event.id)\n            added = yield from self._store(event, tenant, request)\n",
        ("tests/core/test_waker.py::test_it_is_called_with_the_id_of_an_event_that_is_stored_and_nothing_else_works",),
    ),
    Breakage(
        "who waits for SQLite's lock is passed for ever",
        "envoyou_core/inbox/handler_queue.py",
        "HandlerTransactionQueue._try_barge",
        "self._clock() - since < PATIENCE",
        "since >= 0",
        ("tests/core/test_handler_queue.py::test_nobody_barges_past_a_handler_that_has_waited_for_long",),
    ),
    Breakage(
        "a limited subquery is asked anew for each row",
        "envoyou_core/inbox/sql/leasing.py",
        "_claim",
        '.cte("due").prefix_with("MATERIALIZED")',
        '.subquery("due")',
        (f"{TEST_SQL}::test_a_claim_of_one_takes_one_under_any_plan",),
    ),
    Breakage(
        "an unreadable event reaches its handlers",
        ENGINE,
        "Engine.run_handlers",
        "        elif claim.unreadable is not None:\n",
        "        elif False:\n",
        (f"{TEST_ENGINE}::test_an_unreadable_event_fails_by_the_retry_policy_and_delays_no_other",),
    ),
    Breakage(
        "the payload of an erased event stays when the event is finished",
        TRANSITIONS,
        "deletes_payload",
        "return settlement.scrub or (erase_requested and settlement.status in FINISHED)",
        "return settlement.scrub",
        (
            "tests/inbox/test_transitions.py::"
            "test_a_payload_is_deleted_for_retention_or_when_an_erased_event_is_finished",
            TEST_SQLITE_INBOX,
        ),
    ),
    Breakage(
        "an attempt overwrites progress that it cannot read",
        TRANSITIONS,
        "settle",
        "    if claim.unreadable is not None:\n",
        "    if False:\n",
        (f"{TEST_SQLITE_INBOX}::test_what_a_newer_release_has_recorded_is_kept",),
    ),
    Breakage(
        "an event without a tenant is looked for in the whole table",
        "envoyou_core/inbox/sql/schema.py",
        "",
        "    inbox_table.c.event_id,\n    inbox_table.c.tenant,\n    unique=True,\n",
        "    inbox_table.c.tenant,\n    inbox_table.c.event_id,\n    unique=True,\n",
        (f"{TEST_SQL}::test_an_event_is_found_by_its_id_alone_through_the_unique_key",),
    ),
    Breakage(
        "a worker started before the fork counts as alive after it",
        "envoyou_core/worker/in_process.py",
        "InProcessHandoff.alive",
        "self._worker is not None and self._worker.alive and self._pid == os.getpid()",
        "self._worker is not None and self._worker.alive",
        ("tests/core/test_worker.py::test_a_forked_child_starts_a_worker_of_its_own",),
    ),
    Breakage(
        "a server ends its process by SIGTERM before the worker has stopped",
        "envoyou_core/worker/termination.py",
        "TerminationSignal._handle",
        "if not self.installed or self._has_stopped or not self._is_working():",
        "if True:",
        ("tests/core/test_termination.py::test_the_server_receives_the_signal_after_the_worker_has_stopped",),
    ),
    Breakage(
        "a worker that its host keeps ending is not reported",
        "envoyou_core/worker/in_process.py",
        "InProcessHandoff._count_ending",
        "if worker.left_work:",
        "if worker.alive:",
        ("tests/core/test_serverless.py::test_worker_cancelled_before_its_first_step_is_replaced",),
    ),
    Breakage(
        "a worker that was cancelled before its first step counts as alive",
        "envoyou_core/worker/worker.py",
        "Worker.start_on_running_loop",
        "        task.add_done_callback(lambda _: self._finished.set())\n",
        "        self._loop = LoopTasks()\n",
        ("tests/core/test_serverless.py::test_worker_cancelled_before_its_first_step_is_replaced",),
    ),
    Breakage(
        "the first of several lifespans to end stops the worker",
        "envoyou_core/lifecycle.py",
        "Lifecycle.lifespan",
        "            if not self._open_lifespans:\n",
        "            if self._open_lifespans >= 0:\n",
        ("tests/core/test_worker.py::test_the_last_of_several_lifespans_stops_it",),
    ),
    Breakage(
        "a dead event stays dead when it is delivered again",
        "envoyou_core/inbox/sql/acceptance.py",
        "_resolve_existing",
        "_t.status == transitions.REARMABLE.value)",
        "_t.status == transitions.REARMABLE.value, _t.key < 0)",
        (f"{TEST_SQLITE_INBOX}::test_a_redelivery_of_a_dead_event_arms_it_anew",),
    ),
    Breakage(
        "handlers run outside of the application's context",
        "envoyou_flask/context.py",
        "handle_within",
        "        webhooks.add_context(lambda: _context(apps))\n",
        "",
        ("tests/flask/test_worker.py::test_handlers_run_in_the_context_of_the_app",),
        adapters=("flask",),
    ),
    Breakage(
        "the hooks of a registry are not included",
        "envoyou_core/handlers.py",
        "Registration.include",
        "        for kind, hook in handlers.hooks:\n            self.add_hook(kind, hook)\n",
        "",
        ("tests/core/test_hooks.py::test_hooks_of_a_registry_are_included_with_its_handlers",),
    ),
    Breakage(
        "an error of the database counts as the handler's failure",
        "envoyou_core/worker/invocation.py",
        "Invocation.is_database_failure",
        "return is_refused or is_database_failure(error, in_inbox=self.stage is not Stage.RUNNING)",
        "return False",
        ("tests/core/test_interruptions.py::test_a_serialization_failure_interrupts",),
    ),
    Breakage(
        "interruptions of an event have no limit",
        "envoyou_core/worker/engine.py",
        "Engine._is_interrupted",
        "if is_counted and number > self.retry.max_interruptions:",
        "if False:",
        ("tests/core/test_interruptions.py::test_a_transaction_that_cannot_be_opened_for_another_reason_is_limited",),
    ),
    Breakage(
        "a handler that hides its event's row has lost its lease",
        "envoyou_core/inbox/sql/inbox.py",
        "SqlInbox._end_transaction",
        "raise sessions.unseen(connection) if self._is_held(claim) else LeaseLostError",
        "raise LeaseLostError",
        ("tests/core/test_sessions.py::test_the_error_names_the_setting_that_hides_the_row",),
    ),
    Breakage(
        "a custom setting of a handler reaches the next event",
        "envoyou_core/inbox/sql/inbox.py",
        "SqlInbox._end_transaction",
        "(state != usual or sessions.was_named(connection))",
        "state != usual",
        ("tests/core/test_sessions.py::test_a_custom_setting_of_a_handler_does_not_reach_the_next_event",),
    ),
    Breakage(
        "what a handler has set in its session reaches the next event",
        "envoyou_django/inbox/sessions.py",
        "renew_changed",
        "    if _differ(_usual[alias], state):\n",
        "    if False:\n",
        ("tests/django/test_sessions.py::test_what_a_handler_has_set_does_not_reach_the_next_event",),
        adapters=("django",),
    ),
    Breakage(
        "handlers may hold all connections of a pool",
        "envoyou_core/inbox/connection_budget.py",
        "ConnectionBudget._set_total",
        "max(1, total - RESERVED)",
        "total",
        (
            "tests/core/test_connection_budget.py::test_acceptance_and_settlements_go_on_while_all_handlers_hold_a_connection",
        ),
    ),
    Breakage(
        "the server's default decides whether an acceptance is on disk",
        "envoyou_core/inbox/sql/database.py",
        "SqlDatabase._accepting",
        '[f"{BEGIN}; {POSTGRES_LIMITS}"]',
        "[BEGIN]",
        ("tests/core/test_server_settings.py::test_an_acceptance_is_committed_to_disk_within_the_answer_budget",),
    ),
    Breakage(
        "settings that a test overrides stay as they were parsed",
        "envoyou_django/conf.py",
        "_forget_parsed_settings",
        "        _keywords.cache_clear()\n",
        "        pass\n",
        ("tests/django/test_settings.py::test_settings_are_parsed_once_until_they_change",),
        adapters=("django",),
    ),
    Breakage(
        "an event is finished although another process has begun a handler",
        "envoyou_core/worker/attempt.py",
        "RunningAttempt._outcome",
        "        if self.elsewhere is not None and self.elsewhere.binding:\n",
        "        if False:\n",
        ("tests/core/test_handlers_elsewhere.py::test_a_handler_that_has_failed_waits_for_a_process_that_has_it",),
    ),
    Breakage(
        "what a process that died may have begun is forgotten",
        "envoyou_core/inbox/transitions.py",
        "count_crash",
        "claim.progress, crashed)",
        "claim.progress, None)",
        ("tests/core/test_handlers_elsewhere.py::test_a_handler_in_which_its_process_died_has_begun",),
    ),
    Breakage(
        "a handler that has begun is dropped with its last process",
        "envoyou_core/inbox/owed.py",
        "OwedElsewhere.binding",
        "if begun or name in self.held",
        "if name in self.held",
        ("tests/core/test_handlers_elsewhere.py::test_a_handler_that_has_failed_waits_for_a_process_that_has_it",),
    ),
    Breakage(
        "a handler that was renamed is waited for",
        "envoyou_core/inbox/owed.py",
        "OwedElsewhere.binding",
        " if begun or name in self.held",
        "",
        (
            "tests/core/test_handlers_elsewhere.py::"
            "test_a_handler_that_was_renamed_before_it_began_is_dropped_when_no_live_process_has_it",
        ),
    ),
    Breakage(
        "a process of another boot is judged by the processes of this one",
        "envoyou_core/inbox/liveness.py",
        "is_gone",
        " or process.boot_id != observer.boot_id",
        "",
        (
            "tests/core/test_liveness.py::"
            "test_a_process_of_another_boot_or_namespace_may_be_live_whatever_is_found_here",
        ),
    ),
    Breakage(
        "a process in another container is judged by the processes of this one",
        "envoyou_core/inbox/liveness.py",
        "is_gone",
        " or process.pid_namespace != observer.pid_namespace",
        "",
        ("tests/core/test_recovery.py::test_workers_in_different_pid_namespaces_take_nothing_from_each_other",),
    ),
    Breakage(
        "broken connections are used again",
        "envoyou_django/runtime.py",
        "DjangoWebhooks.__init__",
        "        self.add_context(fresh_connections)\n",
        "",
        ("tests/django/test_connections.py::test_the_worker_replaces_broken_connections",),
        adapters=("django",),
    ),
    Breakage(
        "what a test delivers is committed by another thread",
        "envoyou_django/inbox/inbox.py",
        "OrmInbox.adds_together",
        "        return not connection.in_atomic_block and not has_begun\n",
        "        return True\n",
        ("tests/django/test_shared_commits.py::InATransaction::test_a_delivery_is_part_of_it",),
        adapters=("django",),
    ),
    Breakage(
        "an adapter imports an internal module of the core",
        "envoyou_flask/extension.py",
        "",
        "from envoyou_core.adapter import MISSING_SECRET, Handler, Hook",
        "from envoyou_core.handlers import Handler\nfrom envoyou_core.adapter import MISSING_SECRET, Hook",
        ("tests/core/test_laws.py::test_an_adapter_imports_public_names_of_the_core_and_no_other_adapter",),
        adapters=("flask",),
    ),
    Breakage(
        "the local platform repeats a delivery later than the guide says",
        "envoyou_core/simulator/schedule.py",
        "RetrySchedule.delay_before",
        "(attempt - 2)",
        "(attempt - 1)",
        ("tests/simulator/test_schedule.py::test_a_delivery_that_fails_is_repeated_by_the_webhooks_policy",),
    ),
    Breakage(
        "the local platform forgets what a killed process was sending",
        "envoyou_core/simulator/sender.py",
        "Sender.run",
        "        self._outbox.recover()\n",
        "",
        ("tests/simulator/test_deliveries.py::test_what_a_killed_process_was_sending_is_sent_by_the_next",),
    ),
    Breakage(
        "the local platform does not repeat a delivery whose answer was dropped",
        "envoyou_core/simulator/sender.py",
        "Sender._attempt",
        'delivered, error = False, "the answer was dropped"',
        'error = "the answer was dropped"',
        ("tests/simulator/test_schedule.py::test_a_dropped_answer_is_recorded_and_the_delivery_repeated",),
    ),
    Breakage(
        "the local platform checks the first address of a host only",
        "envoyou_core/simulator/transport.py",
        "HttpTransport._resolve",
        "for address in addresses:",
        "for address in addresses[:1]:",
        ("tests/simulator/test_deliveries.py::test_other_than_loopback_addresses_are_refused",),
    ),
    Breakage(
        "the local platform connects to a name that it has not checked",
        "envoyou_core/simulator/transport.py",
        "HttpTransport._post_to",
        "httpx2.URL(url).copy_with(host=address)",
        "url",
        ("tests/simulator/test_deliveries.py::test_a_name_is_resolved_once_and_its_addresses_are_tried_in_turn",),
    ),
    Breakage(
        "the local platform answers any key",
        "envoyou_core/simulator/api.py",
        "Api._check_key",
        'if not hmac.compare_digest(given.encode(errors="surrogateescape"), self._key):',
        "if not given:",
        ("tests/simulator/test_api.py::test_the_key_is_required",),
    ),
    Breakage(
        "the local platform delivers to webhooks that are not active",
        "envoyou_core/simulator/sender.py",
        "Sender._attempt",
        " or not webhook.active",
        "",
        ("tests/simulator/test_schedule.py::test_what_waits_for_a_webhook_that_is_no_longer_active_is_dropped",),
    ),
    Breakage(
        "counts that could not be stored are dropped",
        "envoyou_core/analytics/recorder.py",
        "Recorder.flush",
        "self._counter.put_back(rollups)",
        "pass",
        ("tests/core/test_analytics.py::test_counts_that_cannot_be_stored_are_kept_and_reported_once",),
    ),
    Breakage(
        "a forked child stores what its parent has counted",
        "envoyou_core/analytics/counter.py",
        "Counter._forget",
        "self._rows, self._lock = {}, threading.Lock()",
        "self._lock = threading.Lock()",
        ("tests/core/test_analytics.py::test_what_a_process_counted_is_stored_at_its_end_and_once_if_it_forks",),
    ),
    Breakage(
        "an alert has no hysteresis",
        "envoyou_core/alerts/rules.py",
        "next_state",
        "value <= rule.clear",
        "value <= rule.threshold",
        ("tests/core/test_alert_rules.py::test_a_value_that_varies_about_the_threshold_fires_once",),
    ),
    Breakage(
        "several processes evaluate the alerts",
        "envoyou_core/inbox/memory_telemetry.py",
        "MemoryTelemetry.claim_alerts",
        "if due_at > self._now():",
        "if False:",
        ("tests/core/test_inboxes.py::TestMemoryInbox::test_one_process_at_a_time_evaluates_alerts",),
    ),
    Breakage(
        "local variables are sent to Sentry",
        "envoyou_core/observability/scrubbing.py",
        "scrub",
        'frame.pop("vars", None)',
        "pass",
        ("tests/core/test_sentry.py::test_what_a_handler_reports_itself_has_no_local_variables_and_no_payload",),
    ),
    Breakage(
        "the labels of metrics are not bounded",
        "envoyou_core/observability/measurements.py",
        "Measurements._bounded",
        "else OTHER",
        "else event_type",
        ("tests/core/test_prometheus.py::test_the_labels_of_event_types_are_bounded",),
    ),
    Breakage(
        "the spool loses the trace context",
        "envoyou_core/spool/relay.py",
        "SpoolRelay._add",
        "traceparent=claim.traceparent,",
        "",
        ("tests/core/test_opentelemetry.py::test_the_spool_carries_the_trace_context_to_the_inbox",),
    ),
    Breakage(
        "a tracer that fails refuses the delivery",
        "envoyou_core/reception/tracing.py",
        "trace",
        "except Exception as error:",
        "except KeyError as error:",
        ("tests/core/test_opentelemetry.py::test_a_tracer_that_fails_does_not_affect_the_acceptance",),
    ),
]
