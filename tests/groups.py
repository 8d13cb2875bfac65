"""Consumer groups of tests."""

from contextlib import closing

from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove


def expel_members(bootstrap: str, group: str) -> None:
    """What the broker does with killed workers when their session has expired, at once."""
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        members = admin.describe_groups([group])[group]["members"]
        admin.remove_group_members(group, [MemberToRemove(member_id=member["member_id"]) for member in members])
