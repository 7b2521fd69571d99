"""The recommended method: synthesised classifiers for all labels, shared attentions for those near a seen one."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from lesa.label_map import LabelMap
from lesa.learn.baselines.synthesised import Synthesised, SynthesisedSettings
from lesa.learn.model import Encoded, ModelConfig, Output, SharedMultiAttention, WordSpace


@dataclass(frozen=True)
class CombinedSettings(SynthesisedSettings):
    """The settings of synthesised classifiers, and those of the attentions beside them."""

    near_gamma: PositiveFloat = 8.0
    """The inverse width of the kernel that says how near a label is to a seen one."""
    attention_share: PositiveFloat = 0.5
    """The weight of the attentions' scores beside the synthesised ones."""


class Combined(Synthesised):
    """Synthesised classifiers, whose scores LESA's shared attentions mend for labels at or near the seen ones.

        s[b,c]  = synthesised score + attention_share log mean_m exp(a[b,m] . n(v[c]))
        n(v)    = k'(v, V) (k'(V, V) + kernel_ridge I)^-1 (V - mean of V)     V: the vectors of the seen labels

    a[b,m] are LESA's codes and k' is the Gaussian kernel with `near_gamma`. For a seen label n(v) is about its centred
    vector, as in LESA. Far from all seen labels it is 0, and the synthesised score remains: attentions fit the seen
    labels well and carry little over to others (docs/lab-notes.md).

    The synthesised part has its closed form after the first epoch. The attentions are trained by steps on their own
    scores, as if the other part was not there. Both are one code: a label still picks one of M.
    """

    summed = True
    settings_type = CombinedSettings
    settings: CombinedSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.attention = SharedMultiAttention(replace(config, settings={}))

    @property
    def attentions(self) -> int:
        """M: each attention's code has the synthesised one beside it."""
        return self.config.attentions

    @property
    def code_size(self) -> int:
        """The size of the synthesised part's code and of a label vector."""
        return super().code_size + self.config.vector_size

    def begin(self, vectors_SE: Tensor) -> None:
        """Also solve for the map n, which depends on label vectors alone."""
        super().begin(vectors_SE)
        anchors_AE = self.get_buffer("anchors_AE").double()
        seen_SE = anchors_AE[: len(vectors_SE)]
        kernel_SS = self._ridged_kernel(seen_SE, self.settings.near_gamma)
        near_AE = torch.zeros_like(anchors_AE)
        near_AE[: len(seen_SE)] = torch.linalg.solve(kernel_SS, seen_SE - seen_SE.mean(dim=0))
        self.register_buffer("near_AE", near_AE.to(vectors_SE.dtype))

    def forward(self, regions_BRD: Tensor, vectors_CE: Tensor) -> Output:
        """Score C labels on B photos; in training the attentions alone, because the rest has a closed form."""
        if not self.training:
            return super().forward(regions_BRD, vectors_CE)
        return self.attention.score_points(
            self.attention.encode(regions_BRD), self._near(F.normalize(vectors_CE, dim=1))
        )

    def encode(self, regions_BRD: Tensor) -> Encoded:
        """Turn the regions of B photos into M codes: the synthesised one, which all share, and then each attention's.

        Raises:
            LesaError: the regions' size is not the model's.
        """
        base, near = super().encode(regions_BRD), self.attention.encode(regions_BRD)
        return Encoded(
            codes_BME=torch.cat([base.codes_BME.expand(-1, self.attentions, -1), near.codes_BME], dim=2),
            attention_BMR=near.attention_BMR,
            logits_BMR=near.logits_BMR,
            uniform_BE=torch.cat([base.uniform_BE, near.uniform_BE], dim=1),
            regions_BRD=torch.cat([base.regions_BRD, near.regions_BRD], dim=2),
        )

    def region_points(self, regions_BRD: Tensor) -> Tensor:
        """Return each region alone among the codes, in both parts as long as beside the mean region's code."""
        parts = regions_BRD.chunk(2, dim=2)
        points = super().region_points(parts[0]), self.attention.region_points(parts[1])
        spaces = self.word_space, self.attention.word_space
        return torch.cat([_beside_mean(p, space) for p, space in zip(points, spaces, strict=True)], dim=2)

    def points(self, unit_CE: Tensor) -> Tensor:
        """Return the labels' points for the synthesised part, and n(v) times its share: `C, P + E`."""
        return torch.cat([super().points(unit_CE), self.settings.attention_share * self._near(unit_CE)], dim=1)

    def label_map(self) -> LabelMap:
        """Return `points` for use without PyTorch."""
        near_AE = self.settings.attention_share * self.get_buffer("near_AE")
        return replace(super().label_map(), near_AE=near_AE.cpu().numpy(), near_gamma=self.settings.near_gamma)

    def _near(self, unit_CE: Tensor) -> Tensor:
        """Return n of C labels, `C, E`."""
        return self._kernel(unit_CE, self.get_buffer("anchors_AE"), self.settings.near_gamma) @ self.get_buffer(
            "near_AE"
        )


def _beside_mean(points_BRP: Tensor, space: WordSpace) -> Tensor:
    """Return regions among the codes, scaled as the code of their mean is."""
    if (temperature := space.temperature()) is None:
        return points_BRP
    length_B11 = points_BRP.mean(dim=1, keepdim=True).norm(dim=2, keepdim=True)
    scaled_BRP: Tensor = points_BRP * temperature / length_B11.clamp(min=torch.finfo(points_BRP.dtype).tiny)
    return scaled_BRP
