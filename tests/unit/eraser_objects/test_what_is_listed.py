"""Of what a listing tells of an object, what is read: reading all of it takes twice as long."""

from typing import Any

from lethe_eraser.objects.calls import _session

_TOLD = b"""<LastModified>2026-11-29T06:02:20.123Z</LastModified><Size>1</Size>
<ETag>&quot;e&quot;</ETag><StorageClass>STANDARD</StorageClass><Owner><ID>o</ID></Owner>"""
_OBJECTS = b"<ListBucketResult><Contents><Key>a.jpg</Key>%s</Contents></ListBucketResult>" % _TOLD
_VERSIONS = (
    b"<ListVersionsResult>"
    b"<Version><Key>a.jpg</Key><VersionId>1</VersionId><IsLatest>false</IsLatest>%s</Version>"
    b"<DeleteMarker><Key>b.jpg</Key><VersionId>2</VersionId>%s</DeleteMarker>"
    b"</ListVersionsResult>"
) % (_TOLD, _TOLD)


def _read(operation: str, body: bytes) -> dict[str, Any]:
    """Read an answer as every client of ours does."""
    client = _session().client(
        "s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    core: Any = _session()._session
    parser = core.get_component("response_parser_factory").create_parser("rest-xml")
    shape = client.meta.service_model.operation_model(operation).output_shape
    answer: dict[str, Any] = parser.parse({"body": body, "headers": {}, "status_code": 200}, shape)
    return answer


def test_of_an_object_its_key_is_read() -> None:
    assert _read("ListObjectsV2", _OBJECTS)["Contents"] == [{"Key": "a.jpg"}]


def test_of_a_version_what_names_it_and_what_is_in_it_is_read() -> None:
    answer = _read("ListObjectVersions", _VERSIONS)
    assert answer["Versions"] == [{"Key": "a.jpg", "VersionId": "1", "ETag": '"e"'}]
    assert answer["DeleteMarkers"] == [{"Key": "b.jpg", "VersionId": "2"}]
