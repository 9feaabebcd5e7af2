"""What is wrong with a case: one exception, with a code that tables can group by."""

from pathlib import Path


class CaseError(ValueError):
    """A case, file or argument that cannot be used; `code` names the kind of trouble."""

    def __init__(self, message: str, code: str = "refused") -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple:  # pickled between processes with its code
        return type(self), (str(self), self.code)


def short_name(path: Path) -> str:
    """The file with its case folder, as messages name it: `case_00003/imaging.nii.gz`."""
    return f"{path.parent.name}/{path.name}"
