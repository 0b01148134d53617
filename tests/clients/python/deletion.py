"""A deletion by the client that openapi-python-client makes of the gateway's description. Nothing is written by hand but this."""

import json
import os
import urllib.request

from client import AuthenticatedClient
from client.api.connections import read_connection
from client.api.deletions import cancel_deletion, create_deletion, delete_contact, list_deletions, read_deletion
from client.models import ContactById, ContactProblem, Deletion, DeletionRequest, DryRun, Outcome, Problem, ProblemCode
from client.models import ErrorCode, State

CONTACT, OTHER = "6960cbe9b155d194e2f00001", "6960cc07b155d194e2f00002"


def seed(*contacts):
    url = os.environ["ONEDELETE_CONTROL"] + "/upstreams/support/contacts"
    body = json.dumps([{"id": contact} for contact in contacts]).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT"), timeout=20) as reply:
        assert reply.status < 300


def main():
    seed(CONTACT, OTHER)
    url, key = os.environ["ONEDELETE_URL"], os.environ["ONEDELETE_KEY"]
    gateway = AuthenticatedClient(base_url=url, token=key)

    connection = read_connection.sync("support", client=gateway)
    assert connection.dialect == "kore_ai" and connection.identifiers[0].kind == "id", connection

    contacts = [ContactById(id=CONTACT, connection="support", ref="row-1"), ContactById(id="x", connection="support")]
    dry_run = create_deletion.sync(client=gateway, body=DeletionRequest(contacts=contacts, dry_run=True))
    assert isinstance(dry_run, DryRun) and dry_run.counts.would_delete == 1, dry_run

    request = DeletionRequest(contacts=contacts, reference="DSR-1042")
    answer = create_deletion.sync_detailed(client=gateway, body=request, idempotency_key="once")
    deletion = answer.parsed
    assert answer.status_code == 207 and isinstance(deletion, Deletion), answer
    assert deletion.state == State.FINISHED
    assert [result.outcome for result in deletion.results] == [Outcome.DELETED, Outcome.REJECTED], deletion
    assert deletion.results[0].ref == "row-1" and deletion.results[1].error.code == ErrorCode.INVALID_IDENTIFIER
    again = create_deletion.sync_detailed(client=gateway, body=request, idempotency_key="once")
    assert again.headers["Idempotency-Replayed"] == "true" and again.parsed == deletion, again

    assert read_deletion.sync(deletion.id, client=gateway) == deletion
    assert cancel_deletion.sync(deletion.id, client=gateway) == deletion
    page = list_deletions.sync(client=gateway, reference="DSR-1042")
    assert [each.id for each in page.deletions] == [deletion.id], page

    one = delete_contact.sync("support", OTHER, client=gateway)
    assert one.outcome == Outcome.DELETED and one.absent is True, one
    refused = delete_contact.sync("support", "x", client=gateway)
    assert isinstance(refused, ContactProblem) and refused.attempted is False, refused
    unknown = create_deletion.sync(client=gateway, body=DeletionRequest(contacts=["1"], connection="nobody"))
    assert isinstance(unknown, Problem) and unknown.code == ProblemCode.NOT_FOUND, unknown
    print("clients: python: held")


main()
