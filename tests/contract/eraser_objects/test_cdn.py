"""CloudFront as moto plays it: the requests are well-formed and the answers are understood."""

import boto3
import pytest
from pydantic import SecretStr

from lethe_eraser.objects import Cdn, CdnError, CdnOptions
from lethe_sandbox.stack import S3Address


def options_of(server: S3Address) -> CdnOptions:
    return CdnOptions(
        endpoint_url=server.endpoint,
        access_key_id=server.access_key_id,
        secret_access_key=SecretStr(server.secret_access_key),
    )


@pytest.fixture
def distribution(s3: S3Address) -> str:
    client = boto3.client(
        "cloudfront",
        endpoint_url=s3.endpoint,
        region_name="us-east-1",
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
    )
    config = {
        "CallerReference": "contract",
        "Comment": "",
        "Enabled": True,
        "Origins": {
            "Quantity": 1,
            "Items": [
                {
                    "Id": "o",
                    "DomainName": "images.s3.amazonaws.com",
                    "S3OriginConfig": {"OriginAccessIdentity": ""},
                }
            ],
        },
        "DefaultCacheBehavior": {"TargetOriginId": "o", "ViewerProtocolPolicy": "allow-all"},
    }
    answer = client.create_distribution(DistributionConfig=config)  # type: ignore[attr-defined,unused-ignore]  # no stubs for it
    return str(answer["Distribution"]["Id"])


async def test_an_invalidation_is_begun_and_asked_for(s3: S3Address, distribution: str) -> None:
    async with Cdn(options_of(s3)) as cdn:
        known = await cdn.create(distribution, "lethe-1", ("/a%20b.png", "/uploads/acct-1/*"))
        assert await cdn.is_done(distribution, known)


async def test_a_refusal_is_named_and_counted(s3: S3Address) -> None:
    codes: list[str] = []
    async with Cdn(options_of(s3), on_error=codes.append) as cdn:
        with pytest.raises(CdnError) as caught:
            await cdn.create("ENOWHERE", "lethe-1", ("/a",))
    assert codes == [caught.value.code] == ["NoSuchDistribution"]
