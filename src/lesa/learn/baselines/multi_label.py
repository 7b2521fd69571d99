"""Methods of seen labels alone, for the multi-label tables: logistic regression (or WARP, by its loss) and WSABIE."""

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import Tensor, nn

from lesa.learn.model import Model, ModelConfig, Scores, check_sizes


class Logistic(Model):
    """A linear score for each seen label: logistic regression (loss `logistic`), or WARP (loss `warp`).

        s[b,c] = k[c] . mean_r f[b,r] + a[c]          for the S seen labels

    Source of WARP for photos: Gong, Jia, Leung, Toshev, Ioffe, "Deep Convolutional Ranking for Multilabel Image
    Annotation", ICLR 2014, section 3.

    Ours where the paper is silent: the paper trains a whole convolutional network; here its last layer on frozen,
    mean-pooled regions.
    """

    seen_only = True

    def begin(self, vectors_SE: Tensor) -> None:
        """Make the classifier of the seen labels."""
        self.classifier = nn.Linear(self.config.region_size, len(vectors_SE))

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score the S seen labels; the vectors are not used."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        return Scores(self.classifier(regions_BRD.mean(dim=1)))


@dataclass(frozen=True)
class WSABIESettings:
    """The settings of WSABIE."""

    hidden: PositiveInt = 512
    """Size of the space of photos and labels."""


class WSABIE(Model):
    """WSABIE: photos and seen labels in one space that is learned (loss `warp`).

        s[b,c] = (G mean_r f[b,r]) . u[c]             G: D x `hidden`, u: a vector learned for each seen label

    Source: Weston, Bengio, Usunier, "WSABIE: Scaling Up to Large Vocabulary Image Annotation", IJCAI 2011, section 2.

    Ours where the paper is silent: the paper keeps the norms of the columns of G and of the u below a constant; here
    the optimiser's weight decay keeps them small.
    """

    seen_only = True

    settings_type = WSABIESettings
    settings: WSABIESettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.photo_map = nn.Linear(config.region_size, self.settings.hidden, bias=False)

    def begin(self, vectors_SE: Tensor) -> None:
        """Make the vectors that are learned for the seen labels."""
        self.label_map = nn.Linear(self.settings.hidden, len(vectors_SE), bias=False)

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Scores:
        """Score the S seen labels; the vectors are not used."""
        check_sizes(self.config, regions_BRD, vectors_CE)
        return Scores(self.label_map(self.photo_map(regions_BRD.mean(dim=1))))
