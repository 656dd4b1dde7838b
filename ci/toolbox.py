"""Tools that run in containers and reach registries: cosign, oras, syft. Only the command lines are elsewhere."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import dagger
from dagger import dag

from ci.credentials import docker_config_text
from ci.errors import PipelineError
from ci.manifests import children, is_image, is_index, only_child
from ci.tools import COSIGN, ORAS, tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ci.credentials import Login, Secret
    from ci.references import Reference
    from ci.signing import Cosign

WORK: Final = "/work"
_DOCKER_CONFIG: Final = "/run/secrets/docker"
_PUSHING: Final = frozenset({COSIGN, ORAS})
"""Tools that get the registries' logins; whoever else asked for one could push what nobody signed."""
_LINES: Final = 20


@dataclass(frozen=True)
class Toolbox:
    """The tools' images, and how their containers get into registries."""

    tools: Mapping[str, str]
    """Those that are not to be the table's: name → reference."""
    logins: Mapping[str, Login] = field(default_factory=dict)
    """Registry → who pushes."""
    plain_http: frozenset[str] = frozenset()
    """Registries without TLS."""

    def container(self, name: str) -> dagger.Container:
        """Return a tool's container, in an empty folder; those that push have the registries' logins, as a secret."""
        made = (
            dag.container()
            .from_(tool(name, self.tools))
            # Some of these images run as nobody, who could not read the secrets.
            .with_user("0:0")
            .with_directory(WORK, dag.directory())
            .with_env_variable("HOME", WORK)
            .with_workdir(WORK)
        )
        if not (logins := self.logins_of(name)):
            return made
        config = dag.set_secret("docker-config", docker_config_text(logins).value)
        return made.with_mounted_secret(f"{_DOCKER_CONFIG}/config.json", config).with_env_variable(
            "DOCKER_CONFIG", _DOCKER_CONFIG
        )

    def logins_of(self, name: str) -> Mapping[str, Login]:
        """Return the logins that a tool gets: all, or none."""
        return self.logins if name in _PUSHING else {}

    async def tool_image(self, name: str) -> str:
        """Return a tool's image by digest, as it is used."""
        return await dag.container().from_(tool(name, self.tools)).image_ref()

    def text_file(self, name: str, text: str) -> dagger.File:
        """Return a text as a file of the engine's."""
        return dag.directory().with_new_file(name, text).file(name)

    def with_login(self, container: dagger.Container, registry: str) -> dagger.Container:
        """Return the container such that it can be pulled from, and published to, a registry."""
        if (login := self.logins.get(registry)) is None:
            return container
        password = dag.set_secret("registry-password", login.password.value)
        return container.with_registry_auth(registry, login.username, password)

    async def manifest(self, reference: Reference) -> bytes:
        """Return a manifest as the registry has it now, checked where the reference has a digest.

        Raises:
            PipelineError: it is not there, or is another.
        """
        content = await self._fetched("fetch", reference)
        if reference.digest and digest_of(content) != reference.digest:
            raise PipelineError(f"{reference}: the registry gave another manifest: {digest_of(content)}")
        return content

    async def platforms(self, reference: Reference) -> dict[str, Reference]:
        """Return platform → manifest by digest of what is there by digest: an index, or an image of one platform.

        Returns:
            Nothing for an artifact such as a chart.

        Raises:
            PipelineError: it is not there, or malformed.
        """
        content, where = await self.manifest(reference), str(reference)
        if is_index(content, where):
            found = children(content, where)
        elif not is_image(content, where):
            found = ()
        else:
            found = (only_child(await self._fetched("fetch-config", reference), reference.digest, where),)
        return {child.platform: reference.at(child.digest) for child in found}

    async def _fetched(self, verb: str, reference: Reference) -> bytes:
        argv = ["manifest", verb, *self._plain(reference, "--plain-http"), "--output", "fetched.json", str(reference)]
        done = fresh(self.container(ORAS)).with_exec(argv, use_entrypoint=True)
        try:
            return (await done.file(f"{WORK}/fetched.json").contents()).encode()
        except dagger.ExecError as error:
            raise failed(f"{reference} cannot be read", error) from error

    async def resolve(self, reference: Reference) -> Reference:
        """Return a reference by digest: itself, or what its tag names now.

        Raises:
            PipelineError: it is not there.
        """
        return reference.at(reference.digest or digest_of(await self.manifest(reference)))

    async def tags(self, reference: Reference) -> frozenset[str]:
        """Return the tags that a repository has now; it must be there.

        Raises:
            PipelineError: they cannot be read.
        """
        where = f"{reference.registry}/{reference.repository}"
        argv = ["repo", "tags", *self._plain(reference, "--plain-http"), where]
        done = fresh(self.container(ORAS)).with_exec(argv, use_entrypoint=True)
        try:
            return frozenset((await done.stdout()).split())
        except dagger.ExecError as error:
            raise failed(f"the tags of {where} cannot be read", error) from error

    async def push(self, archive: dagger.File, name: str, where: Reference) -> Reference:
        """Push what an OCI archive holds, as it is, and return the reference with the digest that the registry has.

        Args:
            archive: the archive.
            name: its entry's.
            where: with a tag.

        Raises:
            PipelineError: it could not be pushed, or what is there now is another.
        """
        oras = self.container(ORAS).with_mounted_file(f"{WORK}/image.tar", archive)
        copy = ["cp", "--from-oci-layout", *self._plain(where, "--to-plain-http"), f"image.tar:{name}", str(where)]
        try:
            digest = (
                await oras.with_exec(["resolve", "--oci-layout", f"image.tar:{name}"], use_entrypoint=True).stdout()
            ).strip()
            await fresh(oras).with_exec(copy, use_entrypoint=True).sync()
        except dagger.ExecError as error:
            raise failed(f"{where} could not be pushed", error) from error
        pushed = await self.resolve(where)
        if pushed.digest != digest:
            raise PipelineError(f"{where} is {pushed.digest}, but pushed was {digest}")
        return pushed

    async def tag(self, reference: Reference, tag: str) -> Reference:
        """Give what is there by digest one more tag, and return the reference by tag.

        Raises:
            PipelineError: the tag could not be set, or names another now.
        """
        wanted = reference.tagged(tag)
        argv = ["tag", *self._plain(reference, "--plain-http"), str(reference), tag]
        try:
            await fresh(self.container(ORAS)).with_exec(argv, use_entrypoint=True).sync()
        except dagger.ExecError as error:
            raise failed(f"{wanted}: the tag could not be set", error) from error
        if (found := await self.resolve(wanted)).digest != reference.digest:
            raise PipelineError(f"{wanted} is {found.digest}, and not what was signed: {reference}")
        return wanted

    def _plain(self, reference: Reference, option: str) -> list[str]:
        return [option] if reference.registry in self.plain_http else []

    async def run_cosign(
        self,
        cosign: Cosign,
        steps: Sequence[list[str]],
        *,
        secrets: Mapping[str, Secret] | None = None,
        files: Mapping[str, dagger.File] | None = None,
    ) -> dagger.Container:
        """Run cosign's command lines one after the other, every time anew, and return the container after the last.

        Args:
            cosign: who wrote the command lines; its files are laid into its folder.
            steps: command lines.
            secrets: variable → value, for those that sign; none for those that verify.
            files: path → file that the command lines name.

        Raises:
            PipelineError: one failed; the rest was not run.
        """
        container = self.container(COSIGN)
        for name, text in cosign.files().items():
            container = container.with_new_file(f"{cosign.folder}/{name}", text)
        for path, file in (files or {}).items():
            container = container.with_file(path, file)
        for name, secret in (secrets or {}).items():
            container = container.with_secret_variable(name, dag.set_secret(name.lower(), secret.value))
        container = fresh(container)
        for argv in steps:
            # What is verified is printed as well: an SBOM of megabytes, which no log needs.
            container = container.with_exec(argv, use_entrypoint=True, redirect_stdout=f"{WORK}/said.txt")
        try:
            return await container.sync()
        except dagger.ExecError as error:
            raise failed(f"cosign {_step_of(error)} failed", error) from error


def fresh(container: dagger.Container) -> dagger.Container:
    """Return the container such that what is run in it next runs, though it ran before.

    Dagger keeps what a command line gave; what a registry holds is no part of what it looks at.
    """
    return container.with_env_variable("CACHE_BUSTER", uuid.uuid4().hex)


def failed(what: str, error: dagger.ExecError) -> PipelineError:
    """Return the error that says what failed, with the last lines that the program printed."""
    printed = [*error.stdout.strip().splitlines(), *error.stderr.strip().splitlines()] or [error.message]
    said = "\n".join(printed[-_LINES:])
    return PipelineError(f"{what} (exit code {error.exit_code}):\n{said}")


def digest_of(content: bytes) -> str:
    """Return the digest of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _step_of(error: dagger.ExecError) -> str:
    words = [word for word in error.command if not word.startswith("/")]
    return f"{words[0]} {words[-1]}" if words else ""
