"""Synthesised classifiers: a smooth map from label vectors to linear classifiers, learned from the seen labels."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lesa.label_map import LabelMap
from lesa.learn.baselines.eszsl import RidgeRegression, add_ridge
from lesa.learn.losses import contrastive_loss
from lesa.learn.model import CodeModel, Encoded, ModelConfig, WordSpace, check_regions, check_sizes

SAMPLE = 4096
"""Number of training photos, the first ones in the seed's order, that the prior and the temperature are fitted on."""
PRIOR_RIDGE = 1e-3
"""Weight of the squared norm of the prior's weights, beside the mean loss of a photo."""
PRIOR_STEPS = 60
"""Greatest number of steps of L-BFGS for prior and temperature; their loss is convex for a fixed temperature."""


@dataclass(frozen=True)
class SynthesisedSettings:
    """The settings of synthesised classifiers."""

    gamma: PositiveFloat = 2.0
    """The kernel's inverse width: similarity falls to exp(-gamma) at a squared distance of one."""
    kernel_ridge: PositiveFloat = 0.3
    """What is added to the kernel's diagonal: how far the map may miss the classifiers of the seen labels."""
    ridge: PositiveFloat = 1e4
    """Weight of the squared norm of a seen label's classifier."""
    unit_classifiers: bool = True
    """Whether the seen labels' classifiers are brought to unit length, so that frequent labels do not dominate."""
    classes: bool = False
    """Whether the classes that the backbone knows by name are examples, too, as far as they have a label vector. Then
    unseen labels may be such classes: say so beside the results."""
    unit_labels: bool = False
    """Whether every label's synthesised classifier is brought to unit length, so that labels near the examples do not
    win because theirs are longer."""
    largest_code: PositiveInt = 512
    """The greatest length of a code: of more directions, those that matter most for the examples are kept."""
    prior: NonNegativeFloat = 0.0
    """Share of the labels' prior in the scores: how frequent a label of such a vector is in the training photos. With
    0 none is fitted, and the scores have no temperature."""


class Synthesised(CodeModel):
    """Each seen label's ridge classifier is an example of a map from label vectors to classifiers: kernel regression.

        x[b]    = mean_r f[b,r] - mean of that over the training photos
        g[s]    = (X'X + ridge I)^-1 X' (y[s] - mean of y[s])            divided by its norm (`unit_classifiers`)
        k(v, w) = exp(-gamma |v - w|^2)                                  v, w: label vectors of unit length
        phi(v)  = k(v, V) (k(V, V) + kernel_ridge I)^-1/2                V: the vectors of the A examples
        W       = G' (k(V, V) + kernel_ridge I)^-1/2                     G: the classifiers of the A examples
        z[b]    = x[b] W                                                 the code
        s[b,c]  = z[b] . phi(v[c])

    with the rows x[b] in X and the targets +1, -1 (0: not annotated) in y. It is ESZSL's compatibility with a curved
    map in place of the straight one. A label far from all examples gets a classifier near zero. Code and phi are turned
    so that the code has no more than D numbers, which leaves the scores as they are; of them the first `largest_code`
    are kept.

    With `classes` those of the classes that the backbone knows by name which have a vector are examples beside the S
    seen labels, A = S + K: g is then the class's row in the backbone's classifier, less the mean of the rows of all
    classes, divided by its norm. The seen labels' regressions then shrink towards multiples of the classifiers that the
    classes alone give them, not towards zero: what the training photos do not show stays as the backbone knows it.

    With `unit_labels` phi(v[c]) is divided by |W phi(v[c])|, the length of the label's classifier. With a `prior` the
    score also says how frequent a label is, as far as its vector tells:

        s[b,c]  = t z[b] . phi(v[c]) + prior p . phi(v[c])               z of unit length with `unit_codes`

    The temperature t and p minimise the contrastive loss of the seen labels on up to 4,096 training photos. The prior
    is one more number of the label's point, against a constant 1 in the code.

    Source: the family of Elhoseiny, Saleh & Elgammal, "Write a Classifier", ICCV 2013, and of Changpinyo, Chao, Gong &
    Sha, "Synthesized Classifiers for Zero-Shot Learning", CVPR 2016.

    Ours: kernel ridge regression with a Gaussian kernel on ridge classifiers of unit length, where the papers learn
    Gaussian processes or phantom classes; and the prior.
    """

    settings_type = SynthesisedSettings
    settings: SynthesisedSettings

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean_D", torch.zeros(config.region_size))

    @property
    def attentions(self) -> int:
        """M: one code, that of the mean region."""
        return 1

    @property
    def code_size(self) -> int:
        """The size of a turned code, and 1 for the prior if there is one."""
        return self.word_space.w.shape[1] + self.has_prior

    @property
    def has_prior(self) -> bool:
        """Whether a code ends with a constant 1, against which a label's point has its prior."""
        return self.settings.prior > 0

    def begin(self, vectors_SE: Tensor) -> None:
        """Keep the examples' vectors at unit length, and make room for their classifiers and for a sample of photos."""
        D = self.config.region_size
        self.regression = RidgeRegression(D, len(vectors_SE))
        rows_KD = vectors_SE.new_zeros(0, D)
        anchors_AE = vectors_SE
        if self.known is not None:
            rows_KD = F.normalize(self.known.rows_KD, dim=1)
            anchors_AE = torch.cat([vectors_SE, self.known.vectors_KE])
        self.register_buffer("rows_KD", rows_KD)
        self.register_buffer("anchors_AE", F.normalize(anchors_AE, dim=1))
        sample = SAMPLE if self.has_prior else 0
        self.register_buffer("sample_ND", torch.zeros(sample, D))
        self.register_buffer("sample_targets_NS", torch.zeros(sample, len(vectors_SE), dtype=torch.int8))
        size = min(D, len(anchors_AE), self.settings.largest_code)
        # No step changes the weights: they have a closed form.
        self.word_space = WordSpace(self.config, size).requires_grad_(False)
        nn.init.zeros_(self.word_space.w)
        self.map_AP = nn.Parameter(torch.zeros(len(anchors_AE), size), requires_grad=False)
        self.register_buffer("lengths_P", torch.zeros(size))
        self.register_buffer("prior_A", torch.zeros(len(anchors_AE)))

    def accumulate(self, regions_BRD: Tensor, vectors_SE: Tensor, targets_BS: Tensor) -> None:
        """Add a batch to the sums of the seen labels' ridge regressions, and to the sample while it has room."""
        check_sizes(self.config, regions_BRD, vectors_SE)
        pooled_BD = regions_BRD.mean(dim=1)
        start = int(self.regression.get_buffer("count"))
        self.regression.add(pooled_BD, targets_BS)
        room = self.get_buffer("sample_ND")[start : start + len(pooled_BD)]
        room.copy_(pooled_BD[: len(room)])
        self.get_buffer("sample_targets_NS")[start : start + len(room)].copy_(targets_BS[: len(room)])

    def solve(self) -> None:
        """Set the code's weights and the labels' map; then fit temperature and prior, if there is one."""
        rows_KD, anchors_AE = self.get_buffer("rows_KD").double(), self.get_buffer("anchors_AE").double()
        seen = len(anchors_AE) - len(rows_KD)
        guess_DS = self._synthesise(anchors_AE[seen:], rows_KD, anchors_AE[:seen]).T if len(rows_KD) else None
        weight_DS, mean_D, _ = self.regression.solve(self.settings.ridge, guess_DS)
        self.get_buffer("mean_D").copy_(mean_D)
        classifiers_SD = F.normalize(weight_DS.T, dim=1) if self.settings.unit_classifiers else weight_DS.T
        examples_AD = torch.cat([classifiers_SD, rows_KD])
        kernel_AA = self._ridged_kernel(anchors_AE, self.settings.gamma)
        values_A, directions_AA = torch.linalg.eigh(kernel_AA)
        root_AA = directions_AA / values_A.sqrt()
        turn_DP, lengths_P, label_turn_PA = torch.linalg.svd(examples_AD.T @ root_AA, full_matrices=False)
        size = self.word_space.w.shape[1]
        self.word_space.w.copy_((turn_DP * lengths_P)[:, :size])
        self.map_AP.copy_(root_AA @ label_turn_PA[:size].T)
        self.get_buffer("lengths_P").copy_(lengths_P[:size])
        if self.has_prior:
            with torch.enable_grad():
                self._fit_prior(root_AA)

    def _fit_prior(self, root_AA: Tensor) -> None:
        """Fit the weights p of phi and the temperature, and set what each anchor adds to the prior."""
        seen = self.get_buffer("sample_targets_NS").shape[1]
        count = min(int(self.regression.get_buffer("count")), SAMPLE)
        targets_NS = self.get_buffer("sample_targets_NS")[:count]
        anchors_AE = self.get_buffer("anchors_AE").double()
        phi_SA = self._kernel(anchors_AE[:seen], anchors_AE, self.settings.gamma) @ root_AA
        codes_NP = (self.get_buffer("sample_ND")[:count] - self.get_buffer("mean_D")) @ self.word_space.w
        codes_NP = F.normalize(codes_NP, dim=1) if self.config.unit_codes else codes_NP
        points_SP = self._phi(self._similarity(self.get_buffer("anchors_AE")[:seen]))
        fit_NS = (codes_NP @ points_SP.T).double()
        # The search starts where scores differ by about one.
        log_temperature = (-fit_NS.std().log()).requires_grad_()
        weights_A = torch.zeros_like(root_AA[0]).requires_grad_()
        optimiser = torch.optim.LBFGS([log_temperature, weights_A], max_iter=PRIOR_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            scores_NS = log_temperature.exp() * fit_NS + phi_SA @ weights_A
            total = contrastive_loss(scores_NS, targets_NS) + PRIOR_RIDGE * weights_A.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimiser.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.get_buffer("prior_A").copy_(self.settings.prior * (root_AA @ weights_A))
            if self.word_space.log_temperature is None:
                self.word_space.w.mul_(log_temperature.exp())
            else:
                self.word_space.log_temperature.copy_(log_temperature)

    def encode(self, regions_BRD: Tensor) -> Encoded:
        """Turn the regions of B photos into one code each, that of the mean region.

        Raises:
            LesaError: the regions' size is not the model's.
        """
        check_regions(self.config, regions_BRD)
        regions_BRD = regions_BRD - self.get_buffer("mean_D")
        logits_BMR = regions_BRD.new_zeros(len(regions_BRD), 1, regions_BRD.shape[1])
        codes_BMP = self.word_space.codes(regions_BRD.mean(dim=1, keepdim=True))
        if self.has_prior:
            codes_BMP = F.pad(codes_BMP, (0, 1), value=1.0)
        return Encoded(codes_BMP, logits_BMR.softmax(dim=2), logits_BMR, codes_BMP[:, 0], regions_BRD)

    def region_points(self, regions_BRD: Tensor) -> Tensor:
        """Return each region alone among the codes; a prior has no place in the photo."""
        points_BRP = super().region_points(regions_BRD)
        return F.pad(points_BRP, (0, 1)) if self.has_prior else points_BRP

    def points(self, unit_CE: Tensor) -> Tensor:
        """Return phi of C labels, turned as the codes are, and their prior: `C, P`."""
        similarity_CA = self._similarity(unit_CE)
        points_CP = self._phi(similarity_CA)
        if not self.has_prior:
            return points_CP
        return torch.cat([points_CP, (similarity_CA @ self.get_buffer("prior_A"))[:, None]], dim=1)

    def label_map(self) -> LabelMap:
        """Return `points` for use without PyTorch."""
        return LabelMap(
            anchors_AE=self.get_buffer("anchors_AE").cpu().numpy(),
            weights_AP=self.map_AP.detach().cpu().numpy(),
            gamma=self.settings.gamma,
            lengths_P=self.get_buffer("lengths_P").cpu().numpy() if self.settings.unit_labels else None,
            prior_A=self.get_buffer("prior_A").cpu().numpy() if self.has_prior else None,
        )

    def _similarity(self, unit_CE: Tensor) -> Tensor:
        return self._kernel(unit_CE, self.get_buffer("anchors_AE"), self.settings.gamma)

    def _phi(self, similarity_CA: Tensor) -> Tensor:
        """Return phi of C labels by their similarity to the examples, turned as the codes are: `C, P`."""
        points_CP: Tensor = similarity_CA @ self.map_AP
        if self.settings.unit_labels:
            lengths_C1 = (points_CP * self.get_buffer("lengths_P")).norm(dim=1, keepdim=True)
            points_CP = points_CP / lengths_C1.clamp(min=torch.finfo(points_CP.dtype).tiny)
        return points_CP

    def _synthesise(self, anchors_AE: Tensor, classifiers_AD: Tensor, vectors_CE: Tensor) -> Tensor:
        """Return classifiers of unit length for C labels, from examples alone: `C, D`."""
        gamma = self.settings.gamma
        map_AD = torch.linalg.solve(self._ridged_kernel(anchors_AE, gamma), classifiers_AD)
        return F.normalize(self._kernel(vectors_CE, anchors_AE, gamma) @ map_AD, dim=1)

    def _ridged_kernel(self, anchors_AE: Tensor, gamma: float) -> Tensor:
        return add_ridge(self._kernel(anchors_AE, anchors_AE, gamma), self.settings.kernel_ridge)

    def _kernel(self, vectors_CE: Tensor, anchors_AE: Tensor, gamma: float) -> Tensor:
        """Return k, `C, A`, of unit vectors: |v - w|^2 = 2 - 2 v . w."""
        return torch.exp(-gamma * (2 - 2 * vectors_CE @ anchors_AE.T))
